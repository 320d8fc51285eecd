"""The immutable snapshot of catalog, policies, item statistics and model that every request uses.

Background pollers replace the whole snapshot when a part changes. A request reads the reference once, so it uses
the same snapshot from start to end.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from features.control.plane import ControlPlane
from features.control.rows import Outlet
from features.state.item_columns import read_stats
from features.state.online.port import OnlineStore
from features.state.quarantine import CorruptStateCounter
from recsys.domain.catalog import Catalog
from recsys.domain.embeddings import Content
from recsys.domain.item_statistics import ItemStats
from recsys.guidance.compilation.compile import CompiledPolicy, compile_policy
from recsys.messages import Message
from recsys.models.served_model import ServedModel
from recsys.pacing.on_page import NO_PRICES, ActivePrices
from recsys.pacing.tracker import TargetOverride
from recsys.snapshot import ServingSnapshot
from serving.prometheus import Metrics
from serving.snapshot.policy_cache import PolicyCache

BATCH_SIZE = 2000
"""Number of items that are read from the control plane at once."""


@dataclass(frozen=True)
class Snapshot:
    """All data for pages at one point in time.

    revision           revision of the control plane; -1 before it was read for the first time
    serving_snapshots  outlet -> data for the pages of this outlet
    faults             outlet -> reason why its newest policy is not in service
    closed             outlets with editorial pages only, because no policy published for them was ever usable
    target_overrides   exposure target -> override by an editor
    """

    revision: int
    catalog: Catalog
    stats: ItemStats
    model: ServedModel | None
    outlets: Mapping[str, Outlet]
    serving_snapshots: Mapping[str, ServingSnapshot]
    faults: Mapping[str, Message] = field(default_factory=dict)
    closed: frozenset[str] = frozenset()
    target_overrides: Mapping[str, TargetOverride] = field(default_factory=dict)
    prices: ActivePrices = NO_PRICES

    @classmethod
    def empty(cls) -> Snapshot:
        """Return the snapshot before anything was read."""
        return cls(-1, Catalog.empty(), ItemStats.empty(0), None, {}, {})


class SnapshotHolder:
    """The holder of the current snapshot. `poll_control` and `poll_stats` are tasks for one poller each."""

    def __init__(
        self,
        control: ControlPlane,
        online: OnlineStore,
        clock: Callable[[], float],
        metrics: Metrics,
        prepare: Callable[[], None] = lambda: None,
        corrupt_states: CorruptStateCounter | None = None,
    ) -> None:
        self.current = Snapshot.empty()
        self.policy_cache = PolicyCache()
        self._control = control
        self._online = online
        self._clock = clock
        self._metrics = metrics
        self._corrupt_states = corrupt_states or CorruptStateCounter()
        self._prepare: Callable[[], None] | None = prepare
        self._update_lock = threading.Lock()

    def poll_control(self) -> None:
        """Read all changes of the control plane and update the snapshot. Raises Unavailable."""
        if self._prepare is not None:
            self._prepare()
            self._prepare = None
        before = self.current
        revision = self._control.revision()
        if revision == before.revision:
            return
        # All changes up to `revision` are read. Later changes may be included; the next poll reads them again.
        catalog, outlets = before.catalog, dict(before.outlets)
        since = before.revision
        while page := self._control.items_since(since, BATCH_SIZE):
            since = page[-1].revision
            catalog = catalog.patched([stored.item for stored in page], revision, [stored.number for stored in page])
        outlets.update((outlet.code, outlet) for outlet in self._control.outlets(before.revision))
        for published in self._control.policies_since(before.revision):
            self.policy_cache.put(published)
        target_overrides = {**before.target_overrides, **self._control.target_overrides.since(before.revision)}
        with self._update_lock:
            catalog = replace(catalog, content=self.current.catalog.content)  # another thread may have updated it
            parts = replace(
                self.current, revision=revision, catalog=catalog, outlets=outlets, target_overrides=target_overrides
            )
            self._update("control", parts)

    def poll_stats(self) -> None:
        """Read the item statistics and update the snapshot. Raises Unavailable."""
        catalog = self.current.catalog
        previous = self.current.stats
        stats = read_stats(self._online, catalog, self._clock(), self._corrupt_states, previous)
        with self._update_lock:
            self._update("stats", replace(self.current, stats=stats))

    def set_model(self, model: ServedModel) -> None:
        """Put a model that passed its checks into service."""
        with self._update_lock:
            self._update("model", replace(self.current, model=model))

    def set_embeddings(self, content: Content) -> None:
        """Use these text vectors for all further pages."""
        with self._update_lock:
            before = self.current
            catalog, policies = replace(before.catalog, content=content), dict[int, CompiledPolicy]()
            for snapshot in before.serving_snapshots.values():  # outlets with the same policies still share one object
                policies.setdefault(id(snapshot.policy), replace(snapshot.policy, catalog=catalog))
            snapshots = {
                outlet: replace(snapshot, catalog=catalog, policy=policies[id(snapshot.policy)])
                for outlet, snapshot in before.serving_snapshots.items()
            }
            self.current = replace(before, catalog=catalog, serving_snapshots=snapshots)

    def set_prices(self, prices: ActivePrices) -> None:
        """Use these prices of exposure targets for all further pages."""
        with self._update_lock:
            before = self.current
            snapshots = before.serving_snapshots.items()
            self.current = replace(
                before,
                prices=prices,
                serving_snapshots={outlet: replace(snapshot, prices=prices) for outlet, snapshot in snapshots},
            )

    def _update(self, part: str, parts: Snapshot) -> None:
        """Build the serving snapshots from these parts and use them for all further requests.

        part  the part that changed: control, stats or model
        """
        policies: Mapping[str, CompiledPolicy]
        if part == "control":
            policies = self.policy_cache.compiled(parts.outlets, parts.catalog)
        else:
            policies = {outlet: snapshot.policy for outlet, snapshot in parts.serving_snapshots.items()}
        empty_policy = compile_policy((), parts.catalog)
        base = ServingSnapshot.of(parts.catalog, parts.stats, parts.model, empty_policy)
        editorial = (
            ServingSnapshot.of(parts.catalog, ItemStats.empty(len(parts.catalog)), None, empty_policy)
            if self.policy_cache.closed
            else base
        )
        self.current = replace(
            parts,
            serving_snapshots={
                outlet: replace(
                    editorial if outlet in self.policy_cache.closed else base, policy=policy, prices=parts.prices
                )
                for outlet, policy in policies.items()
            },
            faults=dict(self.policy_cache.faults),
            closed=frozenset(self.policy_cache.closed),
        )
        self._metrics.snapshot_updates.labels(part).inc()
        self._metrics.revision.set(parts.revision)
        self._metrics.catalog_items.set(len(parts.catalog))
