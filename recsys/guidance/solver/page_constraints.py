"""Input and output of the solver, as arrays only: `PageConstraints` and `Solution`.

Controls are numbered by importance: control 0 is relaxed last. A control may own several rows; a cap on a topic, for
example, has one row for every topic that could exceed it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from recsys.domain.types import F64, I32, Bool

I64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PageConstraints:
    """The constraints of C controls on a page of K slots, chosen from N candidates.

    active         [C]     bool: the control is in force on this page
    tie            [N]     tie-break among equal values, smaller first, distinct (catalog rows, so the order of the
                           input does not matter)
    member         [R, N]  bool: the candidate counts for the row
    lower, upper   [R, K]  lower[r, k] <= members of r in the first k + 1 slots <= upper[r, k]
    row_control    [R]     control that owns the row
    code           [S, N]  attribute value per candidate for each spacing; -1 = no value, which is never limited
    at_most        [S]     maximum number of items with the same value ...
    within         [S]     ... in any this many consecutive slots
    before         [S, W]  values in the slots just before this page, most recent last, left-padded with -1
    spacing_control  [S]     control that owns the spacing
    pin_item       [P]     candidate, -1 = not among the candidates
    pin_slot       [P]     0-based; a slot >= K makes the pin infeasible
    pin_control    [P]     control that owns the pin
    cap_code       [Q, N]  attribute value per candidate for each cap on an attribute, -1 = none. For reporting only:
                           values that could exceed the cap have rows
    cap_at_most    [Q]     maximum number of items with the same value on the page
    cap_control    [Q]     control that owns the cap
    block_member   [B, N]  bool: candidates that the block excludes but that had to be admitted nevertheless
    block_control  [B]     block in force; if it has members, it owns a row that allows none of them
    shown                  number of slots on earlier pages of the session
    session        [C]     the control's count on these pages (for a cap: of its most frequent value) if it changes what
                           the control requires of this page, else -1; empty if no control counts earlier pages
    """

    slots: int
    active: Bool
    tie: I64
    member: Bool
    lower: I32
    upper: I32
    row_control: I32
    code: I32
    at_most: I32
    within: I32
    before: I32
    spacing_control: I32
    pin_item: I32
    pin_slot: I32
    pin_control: I32
    cap_code: I32 = field(default_factory=lambda: np.zeros((0, 0), np.int32))
    cap_at_most: I32 = field(default_factory=lambda: np.zeros(0, np.int32))
    cap_control: I32 = field(default_factory=lambda: np.zeros(0, np.int32))
    block_member: Bool = field(default_factory=lambda: np.zeros((0, 0), np.bool_))
    block_control: I32 = field(default_factory=lambda: np.zeros(0, np.int32))
    shown: int = 0
    session: I32 = field(default_factory=lambda: np.zeros(0, np.int32))

    @classmethod
    def free(cls, tie: I64 | I32, slots: int) -> PageConstraints:
        """Return constraints without controls: any `min(slots, N)` distinct candidates are feasible."""
        n, empty = len(tie), np.zeros(0, np.int32)
        k = min(slots, n)
        return cls(
            slots=k,
            active=np.zeros(0, np.bool_),
            tie=np.asarray(tie, np.int64),
            member=np.zeros((0, n), np.bool_),
            lower=np.zeros((0, k), np.int32),
            upper=np.zeros((0, k), np.int32),
            row_control=empty,
            code=np.zeros((0, n), np.int32),
            at_most=empty,
            within=empty,
            before=np.zeros((0, 0), np.int32),
            spacing_control=empty,
            pin_item=empty,
            pin_slot=empty,
            pin_control=empty,
        )

    def __len__(self) -> int:
        """Return the number of candidates."""
        return len(self.tie)

    @property
    def controls(self) -> int:
        """The number of controls, C."""
        return len(self.active)

    def with_slack(self, slack: I32) -> PageConstraints:
        """Return the constraints with each control relaxed by its slack [C], in slots; 0 = unchanged.

        Minimums are lowered, caps and spacings raised by the slack; a pin with any slack is dropped.
        """
        pinned = slack[self.pin_control] == 0
        return replace(
            self,
            lower=np.maximum(self.lower - slack[self.row_control, None], 0),
            upper=self.upper + slack[self.row_control, None],
            at_most=self.at_most + slack[self.spacing_control],
            pin_item=self.pin_item[pinned],
            pin_slot=self.pin_slot[pinned],
            pin_control=self.pin_control[pinned],
        )

    def restricted_to(self, keep: Bool) -> PageConstraints:
        """Return the constraints of the controls in the mask `keep` [C] only; control numbers do not change."""
        rows, spacings, pins = keep[self.row_control], keep[self.spacing_control], keep[self.pin_control]
        caps = keep[self.cap_control]
        return replace(
            self,
            active=self.active & keep,
            member=self.member[rows],
            lower=self.lower[rows],
            upper=self.upper[rows],
            row_control=self.row_control[rows],
            code=self.code[spacings],
            at_most=self.at_most[spacings],
            within=self.within[spacings],
            before=self.before[spacings],
            spacing_control=self.spacing_control[spacings],
            pin_item=self.pin_item[pins],
            pin_slot=self.pin_slot[pins],
            pin_control=self.pin_control[pins],
            cap_code=self.cap_code[caps],
            cap_at_most=self.cap_at_most[caps],
            cap_control=self.cap_control[caps],
        )

    def violated_by(self, chosen: I32) -> I32:
        """Return by how many slots a page ([K] candidates) violates each control [C].

        This is the minimum slack that makes the page feasible.
        """
        violation = np.zeros(self.controls, np.int32)
        counts = self.member[:, chosen].cumsum(axis=1)
        excess = np.maximum(np.maximum(self.lower - counts, counts - self.upper), 0).max(axis=1, initial=0)
        np.maximum.at(violation, self.row_control, excess.astype(np.int32))
        for s in range(len(self.at_most)):
            codes = np.concatenate([self.before[s], self.code[s, chosen]])
            maximum = max_in_window(codes, int(self.within[s]), self.slots)
            violation[self.spacing_control[s]] = max(violation[self.spacing_control[s]], maximum - self.at_most[s])
        for item, slot, control in zip(self.pin_item, self.pin_slot, self.pin_control, strict=True):
            if item < 0 or slot >= self.slots or chosen[slot] != item:
                violation[control] = max(violation[control], 1)
        return violation


def max_in_window(codes: I32, within: int, slots: int) -> int:
    """Return the maximum count of any value (-1 excluded) in `within` consecutive slots ending in the last `slots`
    slots.

    >>> max_in_window(np.array([5, 5, 7, 5], np.int32), within=3, slots=4)
    2
    """
    maximum = 0
    for end in range(len(codes) - slots, len(codes)):
        window = codes[max(0, end - within + 1) : end + 1]
        maximum = max(maximum, int(np.count_nonzero(window == codes[end])) if codes[end] >= 0 else 0)
    return maximum


@dataclass(frozen=True)
class Solution:
    """The best page found, the relaxation it needed, and what is proven about it.

    chosen           [K]     candidates in slot order
    relaxed          [C]     slots by which each control was relaxed; 0 = satisfied
    minimal_proven   [C]     bool: proven that less relaxation was not possible, given the more important controls
    price            [C]     play equivalents lost to one unit of a control (one slot of a quota, cap or spacing; the
                             pin); >= 0
    resolved         [C]     bool: the price was computed by solving again with one unit of slack; else it is a dual
                             estimate
    credit           [C, N]  play equivalents by which the prices of a control promote (> 0) or demote (< 0) a
                             candidate, in its slot on the page or, off the page, in the slot it would have without
                             controls (at most the last slot)
    on_page_without  [C, N]  bool: whether the candidate would be on the page without the control, by the dual estimate
    joint_cause      [N, 2]  if no single control clearly puts the candidate on or keeps it off the page: two
                             controls that together do, by the dual estimate; else -1
    value                    sum of attention x value over the page
    bound                    dual bound: no page that satisfies the relaxed constraints has a higher value
    proven                   the page is proven optimal under the relaxed constraints, to a relative 1e-9 (HiGHS: 1e-6)
    """

    chosen: I32
    relaxed: I32
    minimal_proven: Bool
    price: F64
    resolved: Bool
    credit: F64
    on_page_without: Bool
    joint_cause: I32
    value: float
    bound: float
    proven: bool

    @property
    def gap(self) -> float:
        """The optimality gap: distance of bound and value relative to the value; 0 if proven optimal."""
        return relative_gap(self.bound, self.value)


def relative_gap(bound: float, value: float) -> float:
    """Return (bound - value) / |value|, at least 0.

    >>> relative_gap(11.0, 10.0)
    0.1
    """
    return max(0.0, (bound - value) / max(abs(value), 1e-9))
