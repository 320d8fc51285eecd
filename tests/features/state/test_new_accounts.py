"""Goal S1 for new accounts: invented viewers do not make an item popular."""

from __future__ import annotations

import random

import numpy as np
from msgspec.structs import replace

from features.settings import Settings
from recsys.domain.decay import DAY_S, LANDMARK
from serving.pages.source_limits import SOURCES_MAX, SourceLimits
from tests.features.state.test_votes import ITEMS, counted, event, popularity, ranks


def test_s1_invented_viewers_and_new_accounts_lift_an_item_at_most_three_ranks() -> None:
    """Goal S1 for new accounts: each with one event, as many as there are honest events of the item or more.

    Accounts that were never served a page count for nothing, however many there are. Accounts that were served a page
    count for a quarter, and one source can send them for `viewers_per_source` viewers of an item.
    """
    chance, now = random.Random(2), LANDMARK + DAY_S
    honest = [
        event(
            f"h{n}",
            "play",
            LANDMARK + n,
            f"i{chance.choices(range(ITEMS), [1.0 / (n + 1) for n in range(ITEMS)])[0]}",
            f"v{chance.randrange(2000)}",
            trust="anonymous",
        )
        for n in range(8_000)
    ]
    pages = [event(f"p{n}", "impression", LANDMARK - 1.0, "i0", f"v{n}") for n in range(2000)]
    votes = counted(pages + honest)
    before = popularity(votes, now)
    limits = SourceLimits(Settings().viewers_per_source)
    for target in (5, 10, 20):
        invented = [
            event(f"b{n}", kind, now - 100.0, f"i{target}", f"bot{n}", trust="anonymous")
            for n in range(3000)
            for kind in ("play", "like", "share")
        ]
        assert np.array_equal(popularity(votes + counted(invented), now), before)
        served = [event(f"s{n}", "impression", now - 200.0, f"i{target}", f"bot{n}") for n in range(3000)]
        limited = [
            replace(e, trust="anonymous" if limits.admits("192.0.2.7", str(e.item_id), e.viewer_id, e.at) else "excess")
            for e in invented
        ]
        lifted = popularity(votes + [e for e in counted(served + limited) if e.event.kind != "impression"], now)
        assert ranks(before)[target] - ranks(lifted)[target] <= 3
        unlimited = popularity(votes + counted(served + invented), now)
        assert ranks(unlimited)[target] == 0, "without a limit per source, the item would be first"


def test_the_limit_counts_viewers_per_source_item_and_day() -> None:
    limits = SourceLimits(2)
    admitted = [limits.admits("s", "a", f"v{n}", DAY_S) for n in (1, 1, 2, 3, 1, 4)]
    assert admitted == [True, True, True, False, True, False]
    assert limits.admits("s", "b", "v3", DAY_S)
    assert limits.admits("t", "a", "v3", DAY_S)
    assert limits.admits("", "a", "v3", DAY_S)
    assert limits.admits("s", "a", "v3", 2 * DAY_S)
    assert SourceLimits(0).admits("s", "a", "v3", DAY_S)


def test_the_memory_of_the_limits_is_bounded() -> None:
    limits = SourceLimits(1)
    for n in range(SOURCES_MAX + 10):
        limits.admits("s", f"i{n}", "v", 0.0)
    assert len(limits._viewers) == SOURCES_MAX
