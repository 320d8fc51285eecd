"""What every request reads: one immutable snapshot of catalogue, policies, statistics and model.

Background followers replace the snapshot as a whole when a part changed; a request takes the reference once and so sees
one world from its first line to its last.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from features.online import OnlineStore
from features.stats import read_stats
from features.unreadable import Unreadable
from recsys.catalog import Catalog
from recsys.content import Content
from recsys.guidance.compile import CompiledPolicy, compile_policy
from recsys.guidance.targets.onpage import NOT_STEERED, Steered
from recsys.guidance.targets.pursuit import Order
from recsys.messages import Message
from recsys.model import Model
from recsys.pipeline import World
from recsys.state import ItemStats
from serving.control import ControlPlane, Outlet
from serving.metrics import Metrics
from serving.policies import PolicyShelf

PAGE = 2000
"""Items fetched from the control plane at once."""


@dataclass(frozen=True)
class Snapshot:
    """One moment of everything a page is made from.

    revision  of the control plane; -1 before it was ever read
    worlds    outlet -> what its pages are made from
    faults    outlet -> why its newest policy is not in service
    closed    outlets that get editorial pages only, since no policy published for them could ever be used
    """

    revision: int
    catalog: Catalog
    stats: ItemStats
    model: Model | None
    outlets: Mapping[str, Outlet]
    worlds: Mapping[str, World]
    faults: Mapping[str, Message] = field(default_factory=dict)
    closed: frozenset[str] = frozenset()
    orders: Mapping[str, Order] = field(default_factory=dict)  # to exposure targets, by target
    steered: Steered = NOT_STEERED

    @classmethod
    def empty(cls) -> Snapshot:
        """Before anything was read."""
        return cls(-1, Catalog.empty(), ItemStats.empty(0), None, {}, {})


class Holders:
    """Keeps the current snapshot. `follow_*` are steps for followers, each run by one thread."""

    def __init__(
        self,
        control: ControlPlane,
        online: OnlineStore,
        clock: Callable[[], float],
        metrics: Metrics,
        prepare: Callable[[], None] = lambda: None,
        unreadable: Unreadable | None = None,
    ) -> None:
        self.current = Snapshot.empty()
        self.shelf = PolicyShelf()
        self._control = control
        self._online = online
        self._clock = clock
        self._metrics = metrics
        self._unreadable = unreadable or Unreadable()
        self._prepare: Callable[[], None] | None = prepare
        self._swapping = threading.Lock()

    def follow_control(self) -> None:
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
        orders = {**before.orders, **self._control.orders.since(before.revision)}
        with self._swapping:
            catalog = replace(catalog, content=self.current.catalog.content)  # it may have grown meanwhile
            parts = replace(self.current, revision=revision, catalog=catalog, outlets=outlets, orders=orders)
            self._swap("control", parts)

    def follow_stats(self) -> None:
        """Refresh the item statistics. Raises Unavailable."""
        catalog = self.current.catalog
        stats = read_stats(self._online, catalog, self._clock(), self._unreadable)
        with self._swapping:
            self._swap("stats", replace(self.current, stats=stats))

    def take_model(self, model: Model) -> None:
        """Take a model that has passed its probe into service."""
        with self._swapping:
            self._swap("model", replace(self.current, model=model))

    def take_content(self, content: Content) -> None:
        """Let all further pages know items by these text vectors."""
        with self._swapping:
            before = self.current
            catalog, swapped = replace(before.catalog, content=content), dict[int, CompiledPolicy]()
            for world in before.worlds.values():  # outlets under the same policies go on sharing one
                swapped.setdefault(id(world.policy), replace(world.policy, catalog=catalog))
            worlds = {
                outlet: replace(world, catalog=catalog, policy=swapped[id(world.policy)])
                for outlet, world in before.worlds.items()
            }
            self.current = replace(before, catalog=catalog, worlds=worlds)

    def take_steered(self, steered: Steered) -> None:
        """Let all further pages go by these prices of exposure targets."""
        with self._swapping:
            before = self.current
            worlds = {outlet: replace(world, steered=steered) for outlet, world in before.worlds.items()}
            self.current = replace(before, steered=steered, worlds=worlds)

    def _swap(self, part: str, parts: Snapshot) -> None:
        """Build the worlds of these parts and let all further requests see them."""
        policies: Mapping[str, CompiledPolicy]
        if part == "control":
            policies = self.shelf.compiled(parts.outlets, parts.catalog)
        else:
            policies = {outlet: world.policy for outlet, world in parts.worlds.items()}
        none = compile_policy((), parts.catalog)
        base = World.of(parts.catalog, parts.stats, parts.model, none)
        bare = World.of(parts.catalog, ItemStats.empty(len(parts.catalog)), None, none) if self.shelf.closed else base
        self.current = replace(
            parts,
            worlds={
                outlet: replace(bare if outlet in self.shelf.closed else base, policy=policy, steered=parts.steered)
                for outlet, policy in policies.items()
            },
            faults=dict(self.shelf.faults),
            closed=frozenset(self.shelf.closed),
        )
        self._metrics.swaps.labels(part).inc()
        self._metrics.revision.set(parts.revision)
        self._metrics.catalogue.set(len(parts.catalog))
