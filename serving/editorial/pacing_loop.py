"""The control loop of exposure targets: it reads counters from the online store and sets prices in the snapshot.

Every serving process runs the loop once a second. The state of a target is in the online store, and its next state is
a function of that state, the counts and the clock (`recsys.pacing.tracker`). Two processes that update at the same
moment therefore write the same state, and a process that exits loses nothing. A state is written by compare-and-set
and carries the revision of the control plane that its writer had read, so that a process with an older revision, or
one that was suspended, does not replace a newer plan. When the store does not answer, prices are computed from the
last values read: they freeze, then move towards their forecast.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import msgspec

from features.state.codec import NewerState, StateError, decode_state, encode_state
from features.state.exposure_counts import DeliveryCount, read_counts, read_traffic
from features.state.keys import PACING
from features.state.online.port import CasEntry, OnlineStore
from features.state.quarantine import CorruptState, quarantine
from recsys.domain.errors import Finding, Unavailable
from recsys.domain.placement import Placement
from recsys.domain.query import Query
from recsys.domain.regions import within
from recsys.guidance.policy.controls import ExposureTarget
from recsys.guidance.policy.inheritance import SourcedControl
from recsys.guidance.policy.policy import Policy
from recsys.pacing.checks import unreachable
from recsys.pacing.forecast import Forecast, fit
from recsys.pacing.on_page import ActivePrices, target_key
from recsys.pacing.status import describe, projected, status
from recsys.pacing.tracker import DeliveryCounts, DeliveryStatus, PacingState, TargetOverride, advance
from serving.prometheus import Metrics
from serving.snapshot.holders import Snapshot, SnapshotHolder

FORECAST_EVERY_S = 60.0

_decoder = msgspec.msgpack.Decoder(PacingState)


def pacing_key(target: str) -> str:
    """Return the key of the pacing state of a target (`outlet/control`) in the online store."""
    return f"{PACING}{{{target}}}"


@dataclass(frozen=True)
class TrackedTarget:
    """A target as this process tracks it: its outlet, its control, its override and its delivery so far."""

    outlet: str
    target: ExposureTarget
    override: TargetOverride
    state: PacingState
    status: DeliveryStatus
    impressions: int

    @property
    def key(self) -> str:
        """The key of the target, `outlet/control`."""
        return f"{self.outlet}/{self.target.id}"


@dataclass
class PacingLoop:
    """The pacing loop over all targets of all outlets.

    A single poller calls `step`. `running` maps target keys to targets and is replaced as a whole.

    sources          names of the partitions of the log ("topic/0") and of the logs that it replaced
    newest_revision  returns the current revision of the control plane; raises Unavailable
    """

    holders: SnapshotHolder
    online: OnlineStore
    sources: Callable[[], Sequence[str]]
    clock: Callable[[], float]
    metrics: Metrics
    newest_revision: Callable[[], int]
    running: Mapping[str, TrackedTarget] = field(default_factory=dict)
    _forecasts: dict[str, Forecast | None] = field(default_factory=dict)
    _forecast_at: float = float("-inf")
    _counts: Mapping[str, DeliveryCount] = field(default_factory=dict)
    _states: dict[str, PacingState] = field(default_factory=dict)
    _raw_states: Mapping[str, bytes | None] = field(default_factory=dict)  # stored bytes, for compare-and-set
    _unreadable: Mapping[str, str] = field(default_factory=dict)  # target -> why its state or counts cannot be decoded
    _damaged: frozenset[str] = frozenset()  # targets whose stored state is damaged and has to be replaced
    _forecast_fault: str = ""

    def step(self) -> None:
        """Read counts and states, advance every target, publish the prices and store the new states.

        Raises Unavailable or StateError, but only once every target that can be advanced has been.
        """
        snapshot, now = self.holders.current, self.clock()
        origins = target_controls(snapshot)
        if not origins and not self.running:
            return
        store_error: Unavailable | None = None
        try:
            self._read(origins, now)
        except Unavailable as error:
            store_error = error  # continue with the last values read; only the clock advances
        running: dict[str, TrackedTarget] = {}
        changed: dict[str, CasEntry] = {}
        targets_ahead = self._targets_ahead(snapshot.revision)
        for key, origin in origins.items():
            target, override = origin.control, snapshot.target_overrides.get(key, TargetOverride())
            assert isinstance(target, ExposureTarget)
            if key in self._unreadable or key in targets_ahead:  # undecodable, or newer in another process
                previous = self.running.get(key)
                if previous and previous.override == override:  # a new stop or pause removes its price
                    running[key] = previous
                    continue
            if key in self._unreadable:
                continue
            stored_state = self._states.get(key)
            state = stored_state or PacingState.begin(target, now, _first_price(origin, target, self._states))
            delivery = self._counts.get(key, DeliveryCount(key))
            count = delivery_counts(delivery)
            new_state, delivery_status = advance(target, state, count, self._forecast(key, state, count), now, override)
            if (new_state != stored_state or key in self._damaged) and key not in targets_ahead:
                self._states[key] = new_state = replace(new_state, revision=snapshot.revision)
                changed[pacing_key(key)] = (self._raw_states.get(key), encode_state(new_state))
            running[key] = TrackedTarget(
                origin.outlet, target, override, new_state, delivery_status, delivery.impressions
            )
        self._publish(running)
        if store_error:
            raise store_error
        if changed:
            self.online.compare_and_set(changed)  # a state that lost the race is read again in the next step
        if self._unreadable:
            raise StateError("; ".join(f"{key}: {reason}" for key, reason in sorted(self._unreadable.items())))
        if self._forecast_fault:
            raise Unavailable(f"forecasts are stale: {self._forecast_fault}")

    def _read(self, origins: Mapping[str, SourcedControl], now: float) -> None:
        """Read counts, states and, once a minute, forecasts from the store. Raises Unavailable.

        Values that cannot be decoded are left out and listed in `_unreadable`. When a forecast cannot be refreshed,
        the previous one stays in use.
        """
        keys = [*origins, *_similar_targets(origins)]
        unreadable: dict[str, str] = {}
        counts = self._read_counts(list(origins), unreadable)
        values = self.online.get([pacing_key(key) for key in keys])
        self._counts = counts
        states: dict[str, PacingState] = {}
        damaged: dict[str, CorruptState] = {}
        for key, value in zip(keys, values, strict=True):
            try:
                if value is not None:
                    states[key] = decode_state(value, _decoder)
            except NewerState as error:
                unreadable[key] = str(error)
            except StateError as error:
                damaged[key] = CorruptState(pacing_key(key), str(error), now, key in self.running, value or b"")
        states |= self._replace_damaged({key: entry for key, entry in damaged.items() if key in origins})
        self._states, self._unreadable, self._raw_states = states, unreadable, dict(zip(keys, values, strict=True))
        if origins.keys() - self._forecasts.keys() or now - self._forecast_at >= FORECAST_EVERY_S:
            self._forecast_at, self._forecast_fault = now, ""
            try:
                hours = attention_by_hour(self.online)
                self._forecasts = {key: scope_forecast(origin, hours, now) for key, origin in origins.items()}
            except (Unavailable, StateError) as error:
                self._forecasts = {key: self._forecasts.get(key) for key in origins}
                self._forecast_fault = str(error)

    def _replace_damaged(self, damaged: Mapping[str, CorruptState]) -> dict[str, PacingState]:
        """Quarantine damaged states and return the states of this process that replace them.

        A target that this process has not tracked yet begins again from its counts. Raises Unavailable.
        """
        quarantine(self.online, damaged.values())
        if damaged:
            self.metrics.corrupt_states.labels("pacing").inc(len(damaged))
        self._damaged = frozenset(damaged)
        return {key: self.running[key].state for key in damaged if key in self.running}

    def _targets_ahead(self, revision: int) -> set[str]:
        """Return the targets whose states were written at a later control plane revision than this process serves.

        A state beyond the current revision of the control plane does not count: the plane was restored from a backup.
        """
        later = {key: state.revision for key, state in self._states.items() if state.revision > revision}
        if not later:
            return set()
        try:
            current_revision = self.newest_revision()
        except Unavailable:
            return set(later)
        return {key for key, state_revision in later.items() if state_revision <= current_revision}

    def _read_counts(self, keys: list[str], unreadable: dict[str, str]) -> dict[str, DeliveryCount]:
        """Return the counts of the targets; when one cannot be decoded, read them one by one and report it."""
        sources = self.sources()
        try:
            return read_counts(self.online, keys, sources)
        except StateError as error:
            if len(keys) == 1:
                unreadable[keys[0]] = str(error)
                return {}
        return {k: count for key in keys for k, count in self._read_counts([key], unreadable).items()}

    def _publish(self, running: Mapping[str, TrackedTarget]) -> None:
        ended, self.running = self.running.keys() - running.keys(), running
        self.holders.set_prices(
            ActivePrices(
                price={key: tracked.status.price for key, tracked in running.items() if tracked.status.price > 0},
                last_resorts=frozenset(key for key, tracked in running.items() if tracked.status.last_resort),
                stopped=frozenset(key for key, tracked in running.items() if tracked.status.stopped),
            )
        )
        for key, tracked in running.items():
            self._set_gauges(key, tracked.status)
        for key in ended:
            self.metrics.remove_target(key)

    def _set_gauges(self, key: str, delivery: DeliveryStatus) -> None:
        amount = max(delivery.amount, 1e-9)
        self.metrics.target_delivered.labels(key).set(delivery.delivered / amount)
        self.metrics.target_planned.labels(key).set(delivery.planned / amount)
        self.metrics.target_price.labels(key).set(delivery.price)
        self.metrics.target_pacing.labels(key).set(delivery.pacing_error)
        self.metrics.target_expected.labels(key).set(
            outlook.expected if (outlook := projected(delivery)) else float("nan")
        )

    def _forecast(self, key: str, state: PacingState, count: DeliveryCounts) -> Forecast:
        """Return the forecast of a target's pages; without a forecast, assume the traffic rate observed so far."""
        forecast = self._forecasts.get(key)
        if forecast is not None:
            return forecast
        elapsed_s = count.counted_until - state.start
        return Forecast.flat(count.available / elapsed_s if elapsed_s > 0 and count.available > 0 else 1.0)

    def forecast_findings(self, policy: Policy) -> list[Finding]:
        """Return a finding for each target of a policy that the forecast rules out; none without a forecast."""
        targets = [(i, control) for i, control in enumerate(policy.controls) if isinstance(control, ExposureTarget)]
        if not targets:
            return []
        try:
            hours = attention_by_hour(self.online)
        except Unavailable:
            return []
        now, catalog, findings = self.clock(), self.holders.current.catalog, []
        for index, target in targets:
            origin = SourcedControl(target, policy.outlet)
            forecast = scope_forecast(origin, hours, now)
            count = delivery_counts(self._counts.get(target_key(origin), DeliveryCount("")))
            finding = forecast and unreachable(f"controls[{index}]", target, catalog, forecast, now, count)
            if finding:
                findings.append(finding)
        return findings

    def stale_targets(self) -> list[str]:
        """Return a description of each target whose counters have stopped."""
        return [
            f"{key}: {describe(tracked.status)}"
            for key, tracked in self.running.items()
            if status(tracked.status) == "counters silent"
        ]


def delivery_counts(count: DeliveryCount) -> DeliveryCounts:
    """Convert stored counts to the input of the controller."""
    return DeliveryCounts(count.delivered, count.available, count.newest_at)


def target_controls(snapshot: Snapshot) -> dict[str, SourcedControl]:
    """Return every exposure target in force, keyed by `outlet/control`, with the id that its own policy gives it."""
    return {
        target_key(origin): replace(origin, control=origin.control.model_copy(update={"id": origin.alias}))
        for serving_snapshot in snapshot.serving_snapshots.values()
        for origin in serving_snapshot.policy.controls
        if isinstance(origin.control, ExposureTarget)
    }


def attention_by_hour(online: OnlineStore) -> dict[tuple[str, str], dict[int, float]]:
    """Return attention as (placement, region) -> hours since 1970 -> attention. Raises Unavailable."""
    hours: dict[tuple[str, str], dict[int, float]] = {}
    for shard in read_traffic(online):
        of_scope = hours.setdefault((shard.placement, shard.region), {})
        for hour, attention in enumerate(shard.attention):
            if attention:
                hour_since_1970 = shard.day * 24 + hour
                of_scope[hour_since_1970] = of_scope.get(hour_since_1970, 0.0) + attention
    return hours


def scope_forecast(
    origin: SourcedControl, hours: Mapping[tuple[str, str], Mapping[int, float]], now: float
) -> Forecast | None:
    """Return the forecast for the pages on which a target is in force; None when no such page was ever counted."""
    control = origin.control
    timed = bool(control.active.daily or control.active.days)
    hours_of_day = control.active.model_copy(
        update={"since": None, "until": None, "offset": _utc_offset(control.active.offset_s)}
    )
    total: dict[int, float] = {}
    for (placement_id, region), attention_of_hour in hours.items():
        placement = Placement.parse(placement_id)
        query = Query("", "", placement, region, now, 1)
        if not within(placement.outlet, origin.outlet) or not control.in_scope(query):
            continue
        for hour, attention in attention_of_hour.items():
            if not timed or hours_of_day.holds(hour * 3600.0 + 1800.0):
                total[hour] = total.get(hour, 0.0) + attention
    return fit(total, now) if total else None


def _utc_offset(ahead_s: int) -> str:
    sign, minutes = ("-" if ahead_s < 0 else "+"), abs(ahead_s) // 60
    return f"{sign}{minutes // 60:02}:{minutes % 60:02}"


def _similar_targets(origins: Mapping[str, SourcedControl]) -> list[str]:
    """Return targets no longer in force whose learnt prices a new target starts from (`like`)."""
    models = {f"{o.outlet}/{like}" for o in origins.values() if (like := getattr(o.control, "like", None))}
    return sorted(models - origins.keys())


def _first_price(
    origin: SourcedControl, target: ExposureTarget, states: Mapping[str, PacingState]
) -> float | tuple[float, ...]:
    like = states.get(f"{origin.outlet}/{target.like}") if target.like else None
    return like.controller.learned_prices() if like else 0.0
