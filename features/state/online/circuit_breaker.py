"""A circuit breaker: after a few bad answers nobody waits for the server any more, until a probe finds it well.

    closed --(`failure_threshold` of the last `window` answers were bad)--> open --(a probe after `rest_s`)--> half open
    half open --(the probe went well)--> closed, all forgotten          half open --(it did not)--> open, rests again

`Circuit` is a value and a pure machine: it is handed the clock and never asks a server itself (Nygard, *Release It!*,
2nd ed. 2018, ch. 5). `features.state.online.guarded` holds one for a store.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class CircuitBreaker:
    """What is known of a server's health.

    failure_threshold, window  opens once so many of the last `window` answers were bad
    rest_s         seconds from opening to the first probe, and between probes
    bad            the last answers, newest first: True for a failure or a slow one
    opened_at      when it opened or a probe last failed, by the caller's clock; None while closed
    probing        whether a probe is under way
    """

    failure_threshold: int = 3
    window: int = 10
    open_s: float = 0.5
    failures: tuple[bool, ...] = ()
    opened_at: float | None = None
    probing: bool = False

    @property
    def closed(self) -> bool:
        """Whether calls may be made; while it is not, only the probe may."""
        return self.opened_at is None

    def probe_due(self, now: float) -> bool:
        """Whether somebody should probe now."""
        return self.opened_at is not None and not self.probing and now >= self.opened_at + self.open_s

    def record_result(self, well: bool, now: float) -> CircuitBreaker:
        """After one call's answer. Answers that come when it is open, from calls begun before, change nothing.

        >>> breaker = CircuitBreaker(failure_threshold=2).record_result(False, 1.0).record_result(True, 2.0)
        >>> breaker.record_result(False, 3.0).closed
        False
        """
        if not self.closed:
            return self
        bad = (not well, *self.failures)[: self.window]
        if sum(bad) < self.failure_threshold:
            return replace(self, failures=bad)
        return replace(self, failures=(), opened_at=now, probing=False)

    def begin_probe(self) -> CircuitBreaker:
        """Half open: one probe is under way, no other begins."""
        return replace(self, probing=True)

    def record_probe(self, well: bool, now: float) -> CircuitBreaker:
        """After the probe's answer: closed with nothing held against the server, or open and resting again."""
        return replace(self, failures=(), opened_at=None if well else now, probing=False)
