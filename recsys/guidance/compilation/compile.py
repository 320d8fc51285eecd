"""Compilation of policies in two steps.

`compile_policy` evaluates the conditions of a policy over the catalog once. `CompiledPolicy.bounds` then builds the
constraints of a page from these columns by indexing only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
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
"""Candidates that retrieval must supply for each item that a minimum requires."""

MASKS_MAX = 64
"""Maximum number of cached masks that depend on the viewer's province; each is as long as the catalog."""

TRIAL_SLOTS, TRIAL_ITEMS = 24, 200
"""Slots and candidates of the page that `smoke_test` builds."""


@dataclass(frozen=True)
class SupplyRequest:
    """A request to retrieval on behalf of a minimum: `count` items of `member` ([catalog] mask)."""

    control_id: str
    member: Bool
    count: int


@dataclass(frozen=True)
class CompiledPolicy:
    """An effective policy, compiled for one revision of the catalog.

    No control and no bonus applies to a query with `guided=False`. Masks that depend on the viewer's region are
    computed once per province that items are about, and once for all other regions, where no item is local. The most
    recently used masks are cached.
    """

    effective: EffectivePolicy
    catalog: Catalog
    weight_bonus: F64  # [catalog] bonus from the weights, in play equivalents
    masks: dict[tuple[str, str], Bool] = field(repr=False)
    _last_active: dict[str, tuple[Query, tuple[tuple[int, SourcedControl], ...]]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )  # the controls in force for the last query, because every stage of a page needs them

    @property
    def version(self) -> str:
        """Return the versions of all merged policies, such as "cn@3+cn.zj@1"; "none" without a policy."""
        return self.effective.version

    @classmethod
    def none(cls, catalog: Catalog) -> CompiledPolicy:
        """Return a compiled policy without controls and weights."""
        return compile_policy((), catalog)

    @property
    def controls(self) -> tuple[SourcedControl, ...]:
        """Return all controls, in force or not, the most important first; `bounds` refers to them by index."""
        return self.effective.controls

    def bonus(self, rows: I32, query: Query) -> F64:
        """Return the [N] bonus that weights and boosts add to catalog rows, in play equivalents."""
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
        catalog_showable: Callable[[], Bool] | None = None,
    ) -> Bool:
        """Return the [N] mask of the catalog rows that blocks keep off the page.

        A block is relaxed for minimums and pins of stricter enforcement that would otherwise have too few items (see
        `exclusions`).

        showable  [N]     rows that nothing else excludes; default: all rows
        need              id of the only control for which blocks are relaxed; default: any control
        catalog_showable  returns the [catalog] mask of showable items, for rows that were retrieved: blocks are relaxed
                          only if the catalog is short of items, not if retrieval supplied too few
        """
        if not self._has_blocks or not query.guided or not len(rows):
            return np.zeros(len(rows), np.bool_)
        return excluded(self, [o for _, o in self._active(query)], rows, query, showable, need, catalog_showable)

    def block_members(self, query: Query) -> Bool:
        """Return the [catalog] mask of the items that any block matches, whether it is relaxed or not."""
        members = np.zeros(len(self.catalog), np.bool_)
        for _, origin in self._active(query):
            if isinstance(origin.control, Block):
                members |= self.member(origin.control.where, query.region)
        return members

    def needs(self, query: Query, slots: int) -> tuple[SupplyRequest, ...]:
        """Return what the minimums in force require from retrieval."""
        return tuple(
            SupplyRequest(origin.control.id, self.member(origin.control.where, query.region), SUPPLY * minimum)
            for _, origin in self._active(query)
            if isinstance(origin.control, Quota)
            and (minimum := int(min_counts(origin.control, slots).max(initial=0))) > 0
        )

    def pinned_rows(self, query: Query) -> I32:
        """Return the catalog rows of pinned items, to be added to the candidates; unknown items are omitted."""
        pins = (o.control for _, o in self._active(query) if isinstance(o.control, Pin))
        return self.catalog.rows(pin.item for pin in pins if pin.slot > query.n_shown)

    def active_controls(self, query: Query) -> tuple[int, ...]:
        """Return the indexes of the controls in force for a query."""
        return tuple(c for c, _ in self._active(query))

    def member(self, condition: Condition, region: str) -> Bool:
        """Return the [catalog] mask of the items that meet the condition for viewers in a region."""
        home = province(region) if condition.about_viewer else ""
        if home not in self._regions:
            home = ""  # clients send arbitrary regions: all regions that no item is about share one mask
        key = (condition.key(), home)
        cached = self.masks.get(key)
        if cached is None:
            cached = mask(condition, self.catalog, home)
            local = [key for key in list(self.masks) if key[1]]
            for oldest in local[: len(local) - MASKS_MAX + 1] if home and len(local) >= MASKS_MAX else ():
                self.masks.pop(oldest, None)
        elif home:
            self.masks.pop(key, None)  # the most recently used masks come last
        self.masks[key] = cached
        return cached

    @cached_property
    def _has_blocks(self) -> bool:
        """Return whether any control is a block, in force or not."""
        return any(isinstance(origin.control, Block) for origin in self.controls)

    @cached_property
    def _regions(self) -> frozenset[str]:
        """Return the provinces that items are about, and their parents."""
        names = self.catalog.regions.names
        return frozenset({*map(province, names), *(name.partition(".")[0] for name in names)})

    def bounds(self, query: Query, rows: I32, slots: int, shown: I32) -> PageConstraints:
        """Return the constraints of a page.

        rows   [N]  catalog rows of the candidates
        slots       slots requested; the page has `min(slots, N)`
        shown  [M]  catalog rows of the session's earlier pages, in slot order. Quotas hold for the page and for the
                    session so far, as far as one page can compensate; spacing also holds across page boundaries
        """
        return self._builder(self._active(query), query, rows, slots, shown)

    def smoke_test(self) -> None:
        """Build constraints from every control, in force or not, over a few items of the catalog.

        Raises any error that a page under these controls would raise, so that a policy that cannot be compiled is
        detected before it serves pages.
        """
        query = Query("trial", "trial", Placement("trial", Screen.TV, Surface.HOME), "trial", 0.0, TRIAL_SLOTS)
        rows = np.arange(min(len(self.catalog), TRIAL_ITEMS), dtype=np.int32)
        for origin in self.controls:
            origin.control.holds(query)
            if condition := getattr(origin.control, "where", None):
                self.member(condition, query.region)
        self._builder(enumerate(self.controls), query, rows, TRIAL_SLOTS, rows[:0])

    def serving(self, constraints: PageConstraints, chosen: I32, slot: int) -> tuple[str, ...]:
        """Return the ids of the pins and minimums that require the candidate in a slot of a page.

        A minimum requires its first members only, up to its count; later members are on the page for their utility.

        chosen  [K]  candidates of the page, in slot order
        slot         0-based
        """
        candidate = int(chosen[slot])
        pinned = constraints.pin_control[(constraints.pin_item == candidate) & (constraints.pin_slot == slot)]
        before = constraints.member[:, chosen[:slot]].sum(axis=1)
        needs = constraints.member[:, candidate] & (before < constraints.lower.max(axis=1, initial=0))
        return tuple(
            self.controls[c].control.id for c in sorted({*pinned.tolist(), *constraints.row_control[needs].tolist()})
        )

    def _builder(
        self, controls: Iterable[tuple[int, SourcedControl]], query: Query, rows: I32, slots: int, shown: I32
    ) -> PageConstraints:
        builder = _ConstraintBuilder(self, query, rows, min(slots, len(rows)), slots, shown)
        for number, origin in controls:
            builder.add(number, origin.control)
        return builder.bounds()

    def _active(self, query: Query) -> tuple[tuple[int, SourcedControl], ...]:
        """Return index and control of every control in force."""
        last = self._last_active.get("query")
        if last is None or last[0] is not query:
            last = query, tuple((c, o) for c, o in enumerate(self.controls) if query.guided and o.control.holds(query))
            self._last_active["query"] = last  # threads may replace each other's entry, but never see half of one
        return last[1]


def compile_policy(policies: Sequence[Policy], catalog: Catalog) -> CompiledPolicy:
    """Compile the policies of one line of outlets over a catalog.

    Raises PolicyError if the outlets are not ancestors of one another.
    """
    policy = merge_policies(policies)
    bonus = np.zeros(len(catalog))
    for axis, weight in policy.weights.items():
        if axis in catalog.axes.code:
            bonus += weight * catalog.axis[:, catalog.axes.code[axis]]
    masks = {
        (condition.key(), ""): mask(condition, catalog, "")
        for origin in policy.controls
        if (condition := getattr(origin.control, "where", None)) and not condition.about_viewer
    }
    return CompiledPolicy(policy, catalog, bonus, masks)


def attribute(catalog: Catalog, name: Attribute) -> I32 | I16:
    """Return the [catalog] codes of an attribute; -1 where an item has no value."""
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
    """A builder of page constraints, to which controls are added one after another."""

    def __init__(
        self, policy: CompiledPolicy, query: Query, rows: I32, slots: int, requested_slots: int, shown: I32
    ) -> None:
        self.policy, self.query, self.rows, self.shown = policy, query, rows, shown
        self.slots, self.requested_slots = slots, requested_slots
        self.active = np.zeros(len(policy.controls), np.bool_)
        self.rules: list[tuple[int, Bool, I32, I32]] = []
        self.spacings: list[tuple[int, I32, Spacing, I32]] = []
        self.pins: list[tuple[int, int, int]] = []
        self.capped: list[tuple[int, I32, int]] = []
        self.blocks: list[tuple[int, Bool]] = []
        self.session = np.full(len(policy.controls), -1, np.int32)

    def add(self, number: int, control: object) -> None:
        """Add the control with the index `number`."""
        self.active[number] = isinstance(control, Quota | Cap | Spacing) or (
            isinstance(control, Pin) and 0 <= self._pin(control) < self.requested_slots
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
            matches = np.flatnonzero(self.rows == row)
            self.pins.append((number, int(matches[0]) if len(matches) else -1, self._pin(control)))

    def _pin(self, pin: Pin) -> int:
        """Return the 0-based slot on this page; negative for a pin of an earlier page.

        A pin counts from the first slot of the session. Shown items count even if they are not in this catalog.
        """
        return pin.slot - 1 - max(self.query.n_shown, len(self.shown))

    def _quota(self, number: int, quota: Quota) -> None:
        member = self.policy.member(quota.where, self.query.region)
        session = len(self.shown), int(member[self.shown].sum())
        lower, upper = min_counts(quota, self.slots, *session), max_counts(quota, self.slots, *session)
        self.rules.append((number, member[self.rows], lower, upper))
        if session[0] and (
            (lower != min_counts(quota, self.slots)).any() or (upper != max_counts(quota, self.slots)).any()
        ):
            self.session[number] = session[1]

    def _cap(self, number: int, cap: Cap) -> None:
        """Add a row for each value that could exceed the cap: few of the hundreds of values among the candidates."""
        codes = attribute(self.policy.catalog, cap.attribute)
        candidate_codes, shown_codes = codes[self.rows], codes[self.shown]
        page_maximum = count_of(cap.at_most, self.slots, False, 0, 0)
        self.capped.append((number, candidate_codes.astype(np.int32), page_maximum))
        codes_present = candidate_codes[candidate_codes >= 0]
        shown_counts = np.bincount(shown_codes[shown_codes >= 0], minlength=int(codes_present.max(initial=-1)) + 1)
        maxima = [
            count_of(cap.at_most, self.slots, False, len(shown_codes), count)
            for count in range(int(shown_counts.max(initial=0)) + 1)
        ]
        allowed = np.array(maxima, np.int32)[shown_counts]
        size = np.bincount(codes_present, minlength=len(shown_counts))
        narrowed = (size > 0) & (allowed < page_maximum)
        if narrowed.any():
            self.session[number] = int(shown_counts[narrowed].max())
        over = np.flatnonzero(size > allowed)
        members, lower = candidate_codes[None, :] == over[:, None], np.zeros(self.slots, np.int32)
        uppers = np.repeat(allowed[over, None], self.slots, axis=1)
        self.rules.extend((number, member, lower, upper) for member, upper in zip(members, uppers, strict=True))

    def _block(self, number: int, hit: Bool) -> None:
        """Add a maximum of 0 for blocked candidates that were readmitted for stricter controls; else add no row."""
        self.blocks.append((number, hit))
        if hit.any():
            none = np.zeros(self.slots, np.int32)
            self.rules.append((number, hit, none, none))
            self.active[number] = True

    def _spacing(self, number: int, spacing: Spacing) -> None:
        codes = attribute(self.policy.catalog, spacing.attribute)
        seam = codes[self.shown][-(spacing.within - 1) :].astype(np.int32)
        self.spacings.append((number, codes[self.rows].astype(np.int32), spacing, seam))

    def bounds(self) -> PageConstraints:
        """Return the collected constraints as arrays."""
        n, k = len(self.rows), self.slots
        reach = max((spacing.within - 1 for _, _, spacing, _ in self.spacings), default=0)
        before = np.full((len(self.spacings), reach), -1, np.int32)
        for s, (_, _, _, seam) in enumerate(self.spacings):
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
            code=np.array([codes for _, codes, _, _ in self.spacings], np.int32).reshape(len(self.spacings), n),
            at_most=ints([spacing.at_most for _, _, spacing, _ in self.spacings]),
            within=ints([spacing.within for _, _, spacing, _ in self.spacings]),
            before=before,
            spacing_control=ints([number for number, _, _, _ in self.spacings]),
            pin_item=ints([item for _, item, _ in self.pins]),
            pin_slot=ints([slot for _, _, slot in self.pins]),
            pin_control=ints([number for number, _, _ in self.pins]),
            cap_code=np.array([codes for _, codes, _ in self.capped], np.int32).reshape(len(self.capped), n),
            cap_at_most=ints([maximum for _, _, maximum in self.capped]),
            cap_control=ints([number for number, _, _ in self.capped]),
            block_member=np.array([hit for _, hit in self.blocks], np.bool_).reshape(len(self.blocks), n),
            block_control=ints([number for number, _ in self.blocks]),
            shown=len(self.shown),
            session=self.session,
        )
