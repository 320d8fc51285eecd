"""Policy x catalogue -> columns once; policy x request -> bounds of one page, by indexing only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from recsys.domain.catalog import Catalog
from recsys.domain.placement import Placement, Screen, Surface
from recsys.domain.query import Query
from recsys.domain.regions import province
from recsys.domain.types import F64, I16, I32, Bool
from recsys.guidance.compilation.exclusions import excluded
from recsys.guidance.policy.conditions import Condition, mask
from recsys.guidance.policy.controls import Attribute, Block, Boost, Cap, Pin, Quota, Spacing
from recsys.guidance.policy.inheritance import EffectivePolicy, SourcedControl, merge_policies
from recsys.guidance.policy.policy import Policy
from recsys.guidance.policy.quotas import count_of, max_counts, min_counts
from recsys.guidance.solver.page_constraints import PageConstraints

__all__ = ["CompiledPolicy", "SupplyRequest", "compile_policy", "merge_policies"]

SUPPLY = 3
"""Retrieval owes guidance so many candidates for each one that a floor asks for."""

MASKS_MAX = 64
"""Masks of viewers' provinces that are kept, each as long as the catalogue."""

TRIAL_SLOTS, TRIAL_ITEMS = 24, 200
"""Size of the page for which a policy is tried out."""


@dataclass(frozen=True)
class SupplyRequest:
    """What retrieval must supply for one floor: `count` items out of `member` ([catalogue] mask)."""

    control_id: str
    member: Bool
    count: int


@dataclass(frozen=True)
class CompiledPolicy:
    """An effective policy over one catalogue revision.

    A query with `guided=False` meets no control and no bonus. Masks that depend on the viewer's place are made once for
    each province that items are about (and one for all others, where nothing is local), and the latest are kept.
    """

    effective: EffectivePolicy
    catalog: Catalog
    weight_bonus: F64  # [catalogue] bonus by the weights, in play equivalents
    masks: dict[tuple[str, str], Bool] = field(repr=False)

    @property
    def version(self) -> str:
        """Versions of all policies folded in, "cn@3+cn.zj@1"; "none" for no policy."""
        return self.effective.version

    @classmethod
    def none(cls, catalog: Catalog) -> CompiledPolicy:
        """No policy at all."""
        return compile_policy((), catalog)

    @property
    def controls(self) -> tuple[SourcedControl, ...]:
        """All controls, the most important first: numbered as in `bounds`, whether in force or not."""
        return self.effective.controls

    def bonus(self, rows: I32, query: Query) -> F64:
        """[N] what weights and boosts add to catalogue rows, in play equivalents."""
        if not query.guided:
            return np.zeros(len(rows))
        bonus = self.weight_bonus[rows]
        for _, origin in self._active(query):
            if isinstance(origin.control, Boost):
                bonus = bonus + origin.control.bonus * self.member(origin.control.where, query.region)[rows]
        return bonus

    def blocked(
        self,
        rows: I32,
        query: Query,
        showable: Bool | None = None,
        need: str | None = None,
        elsewhere: Callable[[], Bool] | None = None,
    ) -> Bool:
        """[N] whether a block keeps the catalogue row off the page.

        A block yields to harder floors and pins that would have too few items (`blocking`).

        showable  [N]  whether nothing else keeps the row off; all, if unsaid
        need           id of the only control to which blocks yield; any, if unsaid
        elsewhere      [catalogue] showable, where `rows` were retrieved: for want of retrieval no block yields
        """
        return excluded(self, [o for _, o in self._active(query)], rows, query, showable, need, elsewhere)

    def needs(self, query: Query, slots: int) -> tuple[SupplyRequest, ...]:
        """What the floors ask of retrieval."""
        return tuple(
            SupplyRequest(origin.control.id, self.member(origin.control.where, query.region), SUPPLY * least)
            for _, origin in self._active(query)
            if isinstance(origin.control, Quota)
            and (least := int(min_counts(origin.control, slots).max(initial=0))) > 0
        )

    def pinned_rows(self, query: Query) -> I32:
        """Catalogue rows of pinned items, to be fetched whatever retrieval thinks; unknown items are left out."""
        pins = (o.control for _, o in self._active(query) if isinstance(o.control, Pin))
        return self.catalog.rows(pin.item for pin in pins if pin.slot > len(query.shown))

    def member(self, condition: Condition, region: str) -> Bool:
        """[catalogue] items for which the condition holds for viewers of a region."""
        home = province(region) if condition.about_viewer else ""
        if home not in self._regions:
            home = ""  # clients write what they like: all places that no item is about are one
        key = (condition.key(), home)
        known = self.masks.get(key)
        if known is None:
            known = mask(condition, self.catalog, home)
            local = [key for key in list(self.masks) if key[1]]
            for oldest in local[: len(local) - MASKS_MAX + 1] if home and len(local) >= MASKS_MAX else ():
                self.masks.pop(oldest, None)
        elif home:
            self.masks.pop(key, None)  # the latest asked for stand last
        self.masks[key] = known
        return known

    @cached_property
    def _regions(self) -> frozenset[str]:
        """Provinces that items are about, and what lies above them."""
        names = self.catalog.regions.names
        return frozenset({*map(province, names), *(name.partition(".")[0] for name in names)})

    def bounds(self, query: Query, rows: I32, slots: int, shown: I32) -> PageConstraints:
        """What the page must keep.

        rows   [N]  catalogue rows of the candidates
        slots       slots of the page; the page has `min(slots, N)`
        shown  [M]  catalogue rows of the session's earlier pages, in slot order. Shares hold for the page and for the
                    session so far (as far as one page can make up for it); spacing holds across the seam of pages
        """
        return self._builder(self._active(query), query, rows, slots, shown)

    def smoke_test(self) -> None:
        """Bounds with every control in them, whenever and wherever it is in force, over a few items of the catalogue.

        Raises whatever a page would raise on which the control acts, so that a policy that cannot make bounds is found
        before any page asks for them.
        """
        query = Query("trial", "trial", Placement("trial", Screen.TV, Surface.HOME), "trial", 0.0, TRIAL_SLOTS)
        rows = np.arange(min(len(self.catalog), TRIAL_ITEMS), dtype=np.int32)
        for origin in self.controls:
            origin.control.holds(query)
            if condition := getattr(origin.control, "where", None):
                self.member(condition, query.region)
        self._builder(enumerate(self.controls), query, rows, TRIAL_SLOTS, rows[:0])

    def serving(self, bounds: PageConstraints, chosen: I32, slot: int) -> tuple[str, ...]:
        """Ids of the pins and floors in force that need the candidate in a slot (0-based) of a page `chosen` [K].

        A floor needs its members up to the number it asks for; what comes after them is there for its own sake.
        """
        candidate = int(chosen[slot])
        pinned = bounds.pin_control[(bounds.pin_item == candidate) & (bounds.pin_slot == slot)]
        before = bounds.member[:, chosen[:slot]].sum(axis=1)
        needs = bounds.member[:, candidate] & (before < bounds.lower.max(axis=1, initial=0))
        return tuple(
            self.controls[c].control.id for c in sorted({*pinned.tolist(), *bounds.row_control[needs].tolist()})
        )

    def _builder(
        self, controls: Iterable[tuple[int, SourcedControl]], query: Query, rows: I32, slots: int, shown: I32
    ) -> PageConstraints:
        draft = _ConstraintBuilder(self, query, rows, min(slots, len(rows)), slots, shown)
        for number, origin in controls:
            draft.add(number, origin.control)
        return draft.bounds()

    def _active(self, query: Query) -> Iterator[tuple[int, SourcedControl]]:
        return ((c, o) for c, o in enumerate(self.controls) if query.guided and o.control.holds(query))


def compile_policy(policies: Sequence[Policy], catalog: Catalog) -> CompiledPolicy:
    """The policies of one line of outlets over a catalogue. Raises PolicyError when they are not of one line."""
    policy = merge_policies(policies)
    lean = np.zeros(len(catalog))
    for axis, weight in policy.weights.items():
        if axis in catalog.axes.code:
            lean += weight * catalog.axis[:, catalog.axes.code[axis]]
    masks = {
        (condition.key(), ""): mask(condition, catalog, "")
        for origin in policy.controls
        if (condition := getattr(origin.control, "where", None)) and not condition.about_viewer
    }
    return CompiledPolicy(policy, catalog, lean, masks)


def attribute(catalog: Catalog, name: Attribute) -> I32 | I16:
    """[catalogue] codes of an attribute, -1 = none."""
    columns: dict[str, I32 | I16] = {
        "topic": catalog.topic,
        "provider": catalog.provider,
        "series": catalog.series,
        "outlet": catalog.outlet,
        "region": catalog.region,
        "kind": catalog.kind,
    }
    return columns[name]


class _ConstraintBuilder:
    """Bounds in the making: rows, spacings and pins are collected control by control."""

    def __init__(self, policy: CompiledPolicy, query: Query, rows: I32, slots: int, asked: int, shown: I32) -> None:
        self.policy, self.query, self.rows, self.shown = policy, query, rows, shown
        self.slots, self.asked = slots, asked
        self.active = np.zeros(len(policy.controls), np.bool_)
        self.rules: list[tuple[int, Bool, I32, I32]] = []
        self.spaces: list[tuple[int, I32, Spacing, I32]] = []
        self.pins: list[tuple[int, int, int]] = []
        self.capped: list[tuple[int, I32, int]] = []
        self.blocks: list[tuple[int, Bool]] = []
        self.session = np.full(len(policy.controls), -1, np.int32)

    def add(self, number: int, control: object) -> None:
        """Take in control `number`."""
        self.active[number] = isinstance(control, Quota | Cap | Spacing) or (
            isinstance(control, Pin) and 0 <= self._pin(control) < self.asked
        )
        if isinstance(control, Quota):
            self._quota(number, control)
        elif isinstance(control, Cap):
            self._cap(number, control)
        elif isinstance(control, Spacing):
            self._spacing(number, control)
        elif isinstance(control, Block):
            self._block(number, self.policy.member(control.where, self.query.region)[self.rows])
        elif isinstance(control, Pin) and self.active[number]:
            row = self.policy.catalog.row_of.get(control.item, -1)
            place = np.flatnonzero(self.rows == row)
            self.pins.append((number, int(place[0]) if len(place) else -1, self._pin(control)))

    def _pin(self, pin: Pin) -> int:
        """0-based slot on this page: a pin counts from the session's first slot and does not come back on page two.

        What was shown counts even where this process does not know the item (yet, or any more).
        """
        return pin.slot - 1 - max(len(self.query.shown), len(self.shown))

    def _quota(self, number: int, share: Quota) -> None:
        member = self.policy.member(share.where, self.query.region)
        session = len(self.shown), int(member[self.shown].sum())
        lower, upper = min_counts(share, self.slots, *session), max_counts(share, self.slots, *session)
        self.rules.append((number, member[self.rows], lower, upper))
        if session[0] and (
            (lower != min_counts(share, self.slots)).any() or (upper != max_counts(share, self.slots)).any()
        ):
            self.session[number] = session[1]

    def _cap(self, number: int, cap: Cap) -> None:
        """A row for each value that could exceed the cap; pages have hundreds of values and few of those."""
        codes = attribute(self.policy.catalog, cap.attribute)
        here, before = codes[self.rows], codes[self.shown]
        most_anew = count_of(cap.at_most, self.slots, False, 0, 0)
        self.capped.append((number, here.astype(np.int32), most_anew))
        known = here[here >= 0]
        seen = np.bincount(before[before >= 0], minlength=int(known.max(initial=-1)) + 1)
        most = [
            count_of(cap.at_most, self.slots, False, len(before), counted)
            for counted in range(int(seen.max(initial=0)) + 1)
        ]
        allowed = np.array(most, np.int32)[seen]
        size = np.bincount(known, minlength=len(seen))
        narrowed = (size > 0) & (allowed < most_anew)
        if narrowed.any():
            self.session[number] = int(seen[narrowed].max())
        over = np.flatnonzero(size > allowed)
        members, floor = here[None, :] == over[:, None], np.zeros(self.slots, np.int32)
        uppers = np.repeat(allowed[over, None], self.slots, axis=1)
        self.rules.extend((number, member, floor, upper) for member, upper in zip(members, uppers, strict=True))

    def _block(self, number: int, hit: Bool) -> None:
        """Of candidates that had to be let in, none as far as harder controls leave room; else it needs no row."""
        self.blocks.append((number, hit))
        if hit.any():
            none = np.zeros(self.slots, np.int32)
            self.rules.append((number, hit, none, none))
            self.active[number] = True

    def _spacing(self, number: int, space: Spacing) -> None:
        codes = attribute(self.policy.catalog, space.attribute)
        seam = codes[self.shown][-(space.within - 1) :].astype(np.int32)
        self.spaces.append((number, codes[self.rows].astype(np.int32), space, seam))

    def bounds(self) -> PageConstraints:
        """All that was collected, as arrays."""
        n, k = len(self.rows), self.slots
        reach = max((space.within - 1 for _, _, space, _ in self.spaces), default=0)
        before = np.full((len(self.spaces), reach), -1, np.int32)
        for s, (_, _, _, seam) in enumerate(self.spaces):
            before[s, reach - len(seam) :] = seam

        def ints(numbers: list[int]) -> I32:
            return np.array(numbers, np.int32)

        return PageConstraints(
            slots=k,
            active=self.active,
            tie=self.rows.astype(np.int64),
            member=np.array([rule[1] for rule in self.rules], np.bool_).reshape(len(self.rules), n),
            lower=np.array([rule[2] for rule in self.rules], np.int32).reshape(len(self.rules), k),
            upper=np.array([rule[3] for rule in self.rules], np.int32).reshape(len(self.rules), k),
            row_control=ints([rule[0] for rule in self.rules]),
            code=np.array([codes for _, codes, _, _ in self.spaces], np.int32).reshape(len(self.spaces), n),
            at_most=ints([space.at_most for _, _, space, _ in self.spaces]),
            within=ints([space.within for _, _, space, _ in self.spaces]),
            before=before,
            space_control=ints([number for number, _, _, _ in self.spaces]),
            pin_item=ints([item for _, item, _ in self.pins]),
            pin_slot=ints([slot for _, _, slot in self.pins]),
            pin_control=ints([number for number, _, _ in self.pins]),
            cap_code=np.array([codes for _, codes, _ in self.capped], np.int32).reshape(len(self.capped), n),
            cap_at_most=ints([most for _, _, most in self.capped]),
            cap_control=ints([number for number, _, _ in self.capped]),
            block_member=np.array([hit for _, hit in self.blocks], np.bool_).reshape(len(self.blocks), n),
            block_control=ints([number for number, _ in self.blocks]),
            shown=len(self.shown),
            session=self.session,
        )
