"""The control loop of exposure targets: from counters in the online store to prices in this process's snapshot.

Every serving process runs it, once a second. The state of a target is in the online store and its next state is a
function of that state, the counts and the clock (`recsys.pacing.tracker`): two processes that update at the
same moment write the same, and one that ends takes nothing along. A state is swapped for the one it was made from, and
says which revision of the control plane its writer knew: one that has not heard yet of an order, or slept, makes no
plan over again. When the store does not answer, prices go on from what was read last: they freeze, then move towards
their forecast.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import msgspec

from features.state.codec import StateError, decode_state, encode_state
from features.state.exposure_counts import DeliveryCount, read_counts, read_traffic
from features.state.online.port import CasEntry, OnlineStore
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

PACING_PREFIX = "pursuit:"
FORECAST_EVERY_S = 60.0

_pursuit = msgspec.msgpack.Decoder(PacingState)


def pacing_key(target: str) -> str:
    """Where the state of a target (`outlet/control`) lives."""
    return f"{PACING_PREFIX}{{{target}}}"


@dataclass(frozen=True)
class TrackedTarget:
    """A target as this process sees it: whose it is, what it says, where it stands."""

    outlet: str
    target: ExposureTarget
    override: TargetOverride
    state: PacingState
    status: DeliveryStatus
    impressions: int

    @property
    def key(self) -> str:
        """`outlet/control`."""
        return f"{self.outlet}/{self.target.id}"


@dataclass
class PacingLoop:
    """Pursues all targets of all outlets. `step` is for one follower; `running` is replaced as a whole.

    sources  names of the log's partitions, "topic/0", and of the logs that stood in its place before
    newest   the control plane's revision; raises Unavailable
    """

    holders: SnapshotHolder
    online: OnlineStore
    sources: Callable[[], Sequence[str]]
    clock: Callable[[], float]
    metrics: Metrics
    newest: Callable[[], int]
    running: Mapping[str, TrackedTarget] = field(default_factory=dict)
    _forecasts: dict[str, Forecast | None] = field(default_factory=dict)
    _forecast_at: float = float("-inf")
    _counts: Mapping[str, DeliveryCount] = field(default_factory=dict)
    _states: dict[str, PacingState] = field(default_factory=dict)
    _read_as: Mapping[str, bytes | None] = field(default_factory=dict)  # what the store had in the last step
    _broken: Mapping[str, str] = field(default_factory=dict)  # why a target's state or counts cannot be read
    _forecast_fault: str = ""

    def step(self) -> None:
        """Read, pursue, write, steer. Raises Unavailable, StateError, after all has gone on as well as can be."""
        snapshot, now = self.holders.current, self.clock()
        origins = target_controls(snapshot)
        if not origins and not self.running:
            return
        failed: Unavailable | None = None
        try:
            self._read(origins, now)
        except Unavailable as error:
            failed = error  # go on with what was read last: nothing moves but the clock
        running: dict[str, TrackedTarget] = {}
        changed: dict[str, CasEntry] = {}
        ahead = self._newer_revision(snapshot.revision)
        for key, origin in origins.items():
            target, order = origin.control, snapshot.target_overrides.get(key, TargetOverride())
            assert isinstance(target, ExposureTarget)
            if key in self._broken or key in ahead:  # its state is nobody's to guess, or others know better
                kept = self.running.get(key)
                if kept and kept.override == order:  # a stop or a pause takes its price away
                    running[key] = kept
                    continue
            if key in self._broken:
                continue
            before = self._states.get(key)
            state = before or PacingState.begin(target, now, _first_price(origin, target, self._states))
            counted = self._counts.get(key, DeliveryCount(key))
            count = delivery_counts(counted)
            after, standing = advance(target, state, count, self._forecast(key, state, count), now, order)
            if after != before and key not in ahead:
                self._states[key] = after = replace(after, revision=snapshot.revision)
                changed[pacing_key(key)] = (self._read_as.get(key), encode_state(after))
            running[key] = TrackedTarget(origin.outlet, target, order, after, standing, counted.impressions)
        self._publish(running)
        if failed:
            raise failed
        if changed:
            self.online.compare_and_set(
                changed
            )  # where another process was faster, its state is read with the next step
        if self._broken:
            raise StateError("; ".join(f"{key}: {why}" for key, why in sorted(self._broken.items())))
        if self._forecast_fault:
            raise Unavailable(f"forecasts are old: {self._forecast_fault}")

    def _read(self, origins: Mapping[str, SourcedControl], now: float) -> None:
        """Counts, states and, less often, forecasts from the store. Raises Unavailable.

        What cannot be decoded is left out and stands in `_broken`; without a new forecast the old one is kept.
        """
        keys = [*origins, *_similar_targets(origins)]
        broken: dict[str, str] = {}
        counts = self._read_counts(list(origins), broken)
        raw = self.online.get([pacing_key(key) for key in keys])
        self._counts = counts
        states: dict[str, PacingState] = {}
        for key, one in zip(keys, raw, strict=True):
            try:
                if one is not None:
                    states[key] = decode_state(one, _pursuit)
            except StateError as error:
                broken[key] = str(error)
        self._states, self._broken, self._read_as = states, broken, dict(zip(keys, raw, strict=True))
        if origins.keys() - self._forecasts.keys() or now - self._forecast_at >= FORECAST_EVERY_S:
            self._forecast_at, self._forecast_fault = now, ""
            try:
                hours = attention_by_hour(self.online)
                self._forecasts = {key: scope_forecast(origin, hours, now) for key, origin in origins.items()}
            except (Unavailable, StateError) as error:
                self._forecasts = {key: self._forecasts.get(key) for key in origins}
                self._forecast_fault = str(error)

    def _newer_revision(self, revision: int) -> set[str]:
        """Targets whose states know a later revision of the control plane than this process does. Of a plane that went
        back, to a copy of earlier days, no state is ahead."""
        ahead = {key: state.revision for key, state in self._states.items() if state.revision > revision}
        if not ahead:
            return set()
        try:
            newest = self.newest()
        except Unavailable:
            return set(ahead)
        return {key for key, known in ahead.items() if known <= newest}

    def _read_counts(self, keys: list[str], broken: dict[str, str]) -> dict[str, DeliveryCount]:
        """The counts of targets, of all at once or, where one cannot be decoded, of one after the other."""
        sources = self.sources()
        try:
            return read_counts(self.online, keys, sources)
        except StateError as error:
            if len(keys) == 1:
                broken[keys[0]] = str(error)
                return {}
        return {k: count for key in keys for k, count in self._read_counts([key], broken).items()}

    def _publish(self, running: Mapping[str, TrackedTarget]) -> None:
        ended, self.running = self.running.keys() - running.keys(), running
        self.holders.set_prices(
            ActivePrices(
                price={key: one.status.price for key, one in running.items() if one.status.price > 0},
                last_resorts=frozenset(key for key, one in running.items() if one.status.last_resort),
                stopped=frozenset(key for key, one in running.items() if one.status.stopped),
            )
        )
        for key, one in running.items():
            self._measure(key, one.status)
        for key in ended:
            self.metrics.remove_target(key)

    def _measure(self, key: str, s: DeliveryStatus) -> None:
        amount = max(s.amount, 1e-9)
        self.metrics.target_delivered.labels(key).set(s.delivered / amount)
        self.metrics.target_planned.labels(key).set(s.planned / amount)
        self.metrics.target_price.labels(key).set(s.price)
        self.metrics.target_pacing.labels(key).set(s.pacing_error)
        self.metrics.target_expected.labels(key).set(outlook.expected if (outlook := projected(s)) else float("nan"))

    def _forecast(self, key: str, state: PacingState, count: DeliveryCounts) -> Forecast:
        """The forecast of a target's pages; where nothing is known yet, as much as came so far."""
        known = self._forecasts.get(key)
        if known is not None:
            return known
        elapsed_s = count.counted_until - state.start
        return Forecast.flat(count.available / elapsed_s if elapsed_s > 0 and count.available > 0 else 1.0)

    def forecast_findings(self, policy: Policy) -> list[Finding]:
        """Targets of a policy that the forecast says cannot be reached; nothing when no forecast can be made."""
        aims = [(n, c) for n, c in enumerate(policy.controls) if isinstance(c, ExposureTarget)]
        if not aims:
            return []
        try:
            hours = attention_by_hour(self.online)
        except Unavailable:
            return []
        now, catalog, found = self.clock(), self.holders.current.catalog, []
        for place, target in aims:
            origin = SourcedControl(target, policy.outlet)
            forecast = scope_forecast(origin, hours, now)
            count = delivery_counts(self._counts.get(target_key(origin), DeliveryCount("")))
            finding = forecast and unreachable(f"controls[{place}]", target, catalog, forecast, now, count)
            if finding:
                found.append(finding)
        return found

    def stale_targets(self) -> list[str]:
        """Targets whose counters have stopped, in words."""
        return [
            f"{key}: {describe(one.status)}"
            for key, one in self.running.items()
            if status(one.status) == "counters silent"
        ]


def delivery_counts(counted: DeliveryCount) -> DeliveryCounts:
    """What was counted, as the controller takes it."""
    return DeliveryCounts(counted.delivered, counted.available, counted.newest_at)


def target_controls(snapshot: Snapshot) -> dict[str, SourcedControl]:
    """Every exposure target in force anywhere, by `outlet/control`, under the id that its own policy gave it."""
    return {
        target_key(origin): replace(origin, control=origin.control.model_copy(update={"id": origin.alias}))
        for world in snapshot.serving_snapshots.values()
        for origin in world.policy.controls
        if isinstance(origin.control, ExposureTarget)
    }


def attention_by_hour(online: OnlineStore) -> dict[tuple[str, str], dict[int, float]]:
    """(placement, region) -> hour since 1970 -> attention. Raises Unavailable."""
    hours: dict[tuple[str, str], dict[int, float]] = {}
    for shard in read_traffic(online):
        of = hours.setdefault((shard.placement, shard.region), {})
        for hour, attention in enumerate(shard.attention):
            if attention:
                at = shard.day * 24 + hour
                of[at] = of.get(at, 0.0) + attention
    return hours


def scope_forecast(
    origin: SourcedControl, hours: Mapping[tuple[str, str], Mapping[int, float]], now: float
) -> Forecast | None:
    """The forecast of the pages a target is in force on; None where nothing was ever counted."""
    control = origin.control
    timed = bool(control.active.daily or control.active.days)
    always = control.active.model_copy(
        update={"since": None, "until": None, "offset": _offset(control.active.offset_s)}
    )
    total: dict[int, float] = {}
    for (placement_id, region), of in hours.items():
        placement = Placement.parse(placement_id)
        query = Query("", "", placement, region, now, 1)
        if not within(placement.outlet, origin.outlet) or not control.on.holds(query):
            continue
        for hour, attention in of.items():
            if not timed or always.holds(hour * 3600.0 + 1800.0):
                total[hour] = total.get(hour, 0.0) + attention
    return fit(total, now) if total else None


def _offset(ahead_s: int) -> str:
    sign, minutes = ("-" if ahead_s < 0 else "+"), abs(ahead_s) // 60
    return f"{sign}{minutes // 60:02}:{minutes % 60:02}"


def _similar_targets(origins: Mapping[str, SourcedControl]) -> list[str]:
    """Targets that others begin like, and that are not in force any more."""
    wanted = {f"{o.outlet}/{like}" for o in origins.values() if (like := getattr(o.control, "like", None))}
    return sorted(wanted - origins.keys())


def _first_price(
    origin: SourcedControl, target: ExposureTarget, states: Mapping[str, PacingState]
) -> float | tuple[float, ...]:
    like = states.get(f"{origin.outlet}/{target.like}") if target.like else None
    return like.controller.learned_prices() if like else 0.0
