"""Circuit breaker: after repeated failures, calls fail fast until a probe succeeds.

    closed --(`failure_threshold` of the last `window` calls failed)--> open --(a probe after `open_s`)--> half open
    half open --(the probe succeeds)--> closed, history cleared     half open --(it fails)--> open for another `open_s`

`CircuitBreaker` is an immutable value and a pure state machine: the caller passes the time and makes the calls (Nygard,
*Release It!*, 2nd ed. 2018, ch. 5). `features.state.online.guarded` uses it for a store.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class CircuitBreaker:
    """The state of a circuit breaker.

    failure_threshold, window  it opens when this many of the last `window` calls have failed
    open_s     seconds from opening to the first probe, and between probes
    failures   the last results, newest first: True for a failed or slow call
    opened_at  when it opened or a probe last failed, by the caller's clock; None while closed
    probing    whether a probe is in progress
    """

    failure_threshold: int = 3
    window: int = 10
    open_s: float = 0.5
    failures: tuple[bool, ...] = ()
    opened_at: float | None = None
    probing: bool = False

    @property
    def closed(self) -> bool:
        """Return whether all calls are allowed; while the circuit is open, only the probe is."""
        return self.opened_at is None

    def probe_due(self, now: float) -> bool:
        """Return whether it is time for a probe."""
        return self.opened_at is not None and not self.probing and now >= self.opened_at + self.open_s

    def record_result(self, ok: bool, now: float) -> CircuitBreaker:
        """Return the breaker after the result of a call; `ok` is False for a failed or slow call.

        While it is open, results of calls that started earlier change nothing.

        >>> breaker = CircuitBreaker(failure_threshold=2).record_result(False, 1.0)
        >>> breaker.record_result(True, 2.0).record_result(False, 3.0).closed
        False
        """
        if not self.closed:
            return self
        failures = (not ok, *self.failures)[: self.window]
        if sum(failures) < self.failure_threshold:
            return replace(self, failures=failures)
        return replace(self, failures=(), opened_at=now, probing=False)

    def begin_probe(self) -> CircuitBreaker:
        """Return the breaker in state half open: one probe is in progress, and no second one starts."""
        return replace(self, probing=True)

    def record_probe(self, ok: bool, now: float) -> CircuitBreaker:
        """Return the breaker after a probe: closed with an empty history, or open for another `open_s`."""
        return replace(self, failures=(), opened_at=None if ok else now, probing=False)
