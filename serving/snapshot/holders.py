"""What every request reads: one immutable snapshot of catalogue, policies, statistics and model.

Background followers replace the snapshot as a whole when a part changed; a request takes the reference once and so sees
one world from its first line to its last.
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

PAGE = 2000
"""Items fetched from the control plane at once."""


@dataclass(frozen=True)
class Snapshot:
    """One moment of everything a page is made from.

    revision  of the control plane; -1 before it was ever read
    serving_snapshots  outlet -> what its pages are made from
    faults    outlet -> why its newest policy is not in service
    closed    outlets that get editorial pages only, since no policy published for them could ever be used
    """

    revision: int
    catalog: Catalog
    stats: ItemStats
    model: ServedModel | None
    outlets: Mapping[str, Outlet]
    serving_snapshots: Mapping[str, ServingSnapshot]
    faults: Mapping[str, Message] = field(default_factory=dict)
    closed: frozenset[str] = frozenset()
    target_overrides: Mapping[str, TargetOverride] = field(default_factory=dict)  # to exposure targets, by target
    prices: ActivePrices = NO_PRICES

    @classmethod
    def empty(cls) -> Snapshot:
        """Before anything was read."""
        return cls(-1, Catalog.empty(), ItemStats.empty(0), None, {}, {})


class SnapshotHolder:
    """Keeps the current snapshot. `follow_*` are steps for followers, each run by one thread."""

    def __init__(
        self,
        control: ControlPlane,
        online: OnlineStore,
        clock: Callable[[], float],
        metrics: Metrics,
        prepare: Callable[[], None] = lambda: None,
        unreadable: CorruptStateCounter | None = None,
    ) -> None:
        self.current = Snapshot.empty()
        self.shelf = PolicyCache()
        self._control = control
        self._online = online
        self._clock = clock
        self._metrics = metrics
        self._unreadable = unreadable or CorruptStateCounter()
        self._prepare: Callable[[], None] | None = prepare
        self._swapping = threading.Lock()

    def poll_control(self) -> None:
        """Pull what changed in the control plane, if anything. Raises Unavailable."""
        if self._prepare is not None:
            self._prepare()
            self._prepare = None
        before = self.current
        revision = self._control.revision()
        if revision == before.revision:
            return
        # Everything up to `revision` is read; what is written meanwhile may be in it too, and is simply read again.
        catalog, outlets = before.catalog, dict(before.outlets)
        since = before.revision
        while page := self._control.items_since(since, PAGE):
            since = page[-1].revision
            catalog = catalog.patched([stored.item for stored in page], revision)
        outlets.update((outlet.code, outlet) for outlet in self._control.outlets(before.revision))
        for published in self._control.policies_since(before.revision):
            self.shelf.put(published)
        orders = {**before.target_overrides, **self._control.target_overrides.since(before.revision)}
        with self._swapping:
            catalog = replace(catalog, content=self.current.catalog.content)  # it may have grown meanwhile
            parts = replace(self.current, revision=revision, catalog=catalog, outlets=outlets, target_overrides=orders)
            self._swap("control", parts)

    def poll_stats(self) -> None:
        """Refresh the item statistics. Raises Unavailable."""
        catalog = self.current.catalog
        stats = read_stats(self._online, catalog, self._clock(), self._unreadable)
        with self._swapping:
            self._swap("stats", replace(self.current, stats=stats))

    def set_model(self, model: ServedModel) -> None:
        """Take a model that has passed its probe into service."""
        with self._swapping:
            self._swap("model", replace(self.current, model=model))

    def set_embeddings(self, content: Content) -> None:
        """Let all further pages know items by these text vectors."""
        with self._swapping:
            before = self.current
            catalog, swapped = replace(before.catalog, content=content), dict[int, CompiledPolicy]()
            for world in before.serving_snapshots.values():  # outlets under the same policies go on sharing one
                swapped.setdefault(id(world.policy), replace(world.policy, catalog=catalog))
            worlds = {
                outlet: replace(world, catalog=catalog, policy=swapped[id(world.policy)])
                for outlet, world in before.serving_snapshots.items()
            }
            self.current = replace(before, catalog=catalog, serving_snapshots=worlds)

    def set_prices(self, steered: ActivePrices) -> None:
        """Let all further pages go by these prices of exposure targets."""
        with self._swapping:
            before = self.current
            worlds = {outlet: replace(world, prices=steered) for outlet, world in before.serving_snapshots.items()}
            self.current = replace(before, prices=steered, serving_snapshots=worlds)

    def _swap(self, part: str, parts: Snapshot) -> None:
        """Build the worlds of these parts and let all further requests see them."""
        policies: Mapping[str, CompiledPolicy]
        if part == "control":
            policies = self.shelf.compiled(parts.outlets, parts.catalog)
        else:
            policies = {outlet: world.policy for outlet, world in parts.serving_snapshots.items()}
        none = compile_policy((), parts.catalog)
        base = ServingSnapshot.of(parts.catalog, parts.stats, parts.model, none)
        bare = (
            ServingSnapshot.of(parts.catalog, ItemStats.empty(len(parts.catalog)), None, none)
            if self.shelf.closed
            else base
        )
        self.current = replace(
            parts,
            serving_snapshots={
                outlet: replace(bare if outlet in self.shelf.closed else base, policy=policy, prices=parts.prices)
                for outlet, policy in policies.items()
            },
            faults=dict(self.shelf.faults),
            closed=frozenset(self.shelf.closed),
        )
        self._metrics.swaps.labels(part).inc()
        self._metrics.revision.set(parts.revision)
        self._metrics.catalogue.set(len(parts.catalog))
