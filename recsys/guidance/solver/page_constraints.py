"""What a page must keep, as arrays only (`Bounds`), and what the solver answers (`Solution`).

Controls are numbered by importance: control 0 gives way last. One control may own several rows (a cap on a topic has
one row for every topic that could exceed it).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from recsys.domain.types import F64, I32, Bool

I64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PageConstraints:
    """What a page of K slots out of N candidates must keep, for C controls.

    active         [C]     bool: the control is in force here
    tie            [N]     order among equals, smaller first, distinct (catalogue rows: so order of input is nothing)
    member         [R, N]  bool: candidate counts for the row
    lower, upper   [R, K]  lower[r, k] <= members of r in the first k + 1 slots <= upper[r, k]
    row_control    [R]     control that owns the row
    code           [S, N]  value of an attribute per candidate, -1 = none, which never crowds
    at_most        [S]     so many of one value ...
    within         [S]     ... in any so many neighbouring slots
    before         [S, W]  values in the slots just before this page, the newest last, padded with -1 in front
    space_control  [S]     control that owns the spacing
    pin_item       [P]     candidate, -1 = not among them
    pin_slot       [P]     0-based; a slot at or beyond K cannot be kept
    pin_control    [P]     control that owns the pin
    cap_code       [Q, N]  of each cap on an attribute: value per candidate, -1 = none. For counting only: values that
                           could exceed the cap have rows
    cap_at_most    [Q]     so many of one value may stand on a page
    cap_control    [Q]     control that owns the cap
    block_member   [B, N]  bool: a block keeps such candidates off pages; those here had to be let in
    block_control  [B]     block that is in force; one with items here owns a row that allows none of them
    shown                  slots of the session's earlier pages
    session        [C]     what a control counts on these (of a cap: of its fullest value) where that changes what it
                           asks of this page, else -1; empty: nowhere
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
    space_control: I32
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
        """No controls: any `min(slots, N)` different candidates are a page."""
        n, none = len(tie), np.zeros(0, np.int32)
        k = min(slots, n)
        return cls(
            slots=k,
            active=np.zeros(0, np.bool_),
            tie=np.asarray(tie, np.int64),
            member=np.zeros((0, n), np.bool_),
            lower=np.zeros((0, k), np.int32),
            upper=np.zeros((0, k), np.int32),
            row_control=none,
            code=np.zeros((0, n), np.int32),
            at_most=none,
            within=none,
            before=np.zeros((0, 0), np.int32),
            space_control=none,
            pin_item=none,
            pin_slot=none,
            pin_control=none,
        )

    def __len__(self) -> int:
        """Number of candidates."""
        return len(self.tie)

    @property
    def controls(self) -> int:
        """C, the number of controls."""
        return len(self.active)

    def with_slack(self, by: I32) -> PageConstraints:
        """The bounds after each control gave way by so many slots ([C], 0 = as asked).

        Floors sink, caps and spacings rise by that number; a pin that gives way at all is gone.
        """
        pinned = by[self.pin_control] == 0
        return replace(
            self,
            lower=np.maximum(self.lower - by[self.row_control, None], 0),
            upper=self.upper + by[self.row_control, None],
            at_most=self.at_most + by[self.space_control],
            pin_item=self.pin_item[pinned],
            pin_slot=self.pin_slot[pinned],
            pin_control=self.pin_control[pinned],
        )

    def only(self, keep: Bool) -> PageConstraints:
        """The bounds of some controls ([C] mask); numbering stays."""
        rows, spaces, pins = keep[self.row_control], keep[self.space_control], keep[self.pin_control]
        caps = keep[self.cap_control]
        return replace(
            self,
            active=self.active & keep,
            member=self.member[rows],
            lower=self.lower[rows],
            upper=self.upper[rows],
            row_control=self.row_control[rows],
            code=self.code[spaces],
            at_most=self.at_most[spaces],
            within=self.within[spaces],
            before=self.before[spaces],
            space_control=self.space_control[spaces],
            pin_item=self.pin_item[pins],
            pin_slot=self.pin_slot[pins],
            pin_control=self.pin_control[pins],
            cap_code=self.cap_code[caps],
            cap_at_most=self.cap_at_most[caps],
            cap_control=self.cap_control[caps],
        )

    def violated_by(self, chosen: I32) -> I32:
        """[C] by how many slots a page ([K] candidates) breaks each control: the least `relaxed` that makes it fit."""
        by = np.zeros(self.controls, np.int32)
        counts = self.member[:, chosen].cumsum(axis=1)
        off = np.maximum(np.maximum(self.lower - counts, counts - self.upper), 0).max(axis=1, initial=0)
        np.maximum.at(by, self.row_control, off.astype(np.int32))
        for s in range(len(self.at_most)):
            codes = np.concatenate([self.before[s], self.code[s, chosen]])
            crowd = max_in_window(codes, int(self.within[s]), self.slots)
            by[self.space_control[s]] = max(by[self.space_control[s]], crowd - self.at_most[s])
        for item, slot, control in zip(self.pin_item, self.pin_slot, self.pin_control, strict=True):
            if item < 0 or slot >= self.slots or chosen[slot] != item:
                by[control] = max(by[control], 1)
        return by


def max_in_window(codes: I32, within: int, slots: int) -> int:
    """The most that one value (-1 is none) occurs in `within` neighbours, windows ending in the last `slots` places.

    >>> max_in_window(np.array([5, 5, 7, 5], np.int32), within=3, slots=4)
    2
    """
    most = 0
    for end in range(len(codes) - slots, len(codes)):
        window = codes[max(0, end - within + 1) : end + 1]
        most = max(most, int(np.count_nonzero(window == codes[end])) if codes[end] >= 0 else 0)
    return most


@dataclass(frozen=True)
class Solution:
    """The best page found, what gave way for it, and what is proven about it.

    chosen    [K]     candidates in slot order
    relaxed   [C]     by how many slots each control gave way; 0 = kept
    settled   [C]     bool: proven that the control could not have given way less, given the more important ones
    price     [C]     play equivalents lost to one unit (a slot of a floor, cap or spacing; the pin) of a control; >= 0
    resolved  [C]     bool: the price was found by solving again one unit looser; otherwise it is the dual's estimate
    credit    [C, N]  play equivalents by which a control's prices lift (> 0) or hold back (< 0) a candidate, at its
                      slot on the page or, off the page, at the slot it would have had without controls (the last one
                      if none)
    stays     [C, N]  bool: whether a candidate would be on the page without a control, as far as prices tell
    pair      [N, 2]  where no control alone clearly put a candidate on the page or keeps it off, two that do, as far
                      as prices tell; else -1
    value             sum of attention x value over the page
    bound             proven: no page under the relaxed bounds is worth more
    proven            the page is the best one under the relaxed bounds, within 1e-9 of its worth (HiGHS: 1e-6)
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
        """Distance of bound and value, relative to the value's size; 0 when proven."""
        return relative_gap(self.bound, self.value)


def relative_gap(bound: float, value: float) -> float:
    """(bound - value) / |value|, at least 0.

    >>> relative_gap(11.0, 10.0)
    0.1
    """
    return max(0.0, (bound - value) / max(abs(value), 1e-9))
