"""The catalogue as columns: patching equals building anew, rows never move, and bad items are refused."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from recsys.domain.catalog import Catalog, Vocabulary
from recsys.domain.item import Item
from recsys.domain.regions import within

PUBLISHED = datetime(2026, 1, 1, tzinfo=UTC)
LABELS = ["news", "news/local", "film/drama", "children"]


@st.composite
def items(draw: st.DrawFn) -> Item:
    window = {"start": PUBLISHED, "regions": ["cn.zj"]}
    return Item.model_validate(
        {
            "id": f"i{draw(st.integers(0, 8))}",
            "title": {"zh": draw(st.sampled_from(["甲", "乙"]))},
            "outlet": draw(st.sampled_from(["cn", "cn.zj"])),
            "labels": draw(st.lists(st.sampled_from(LABELS), max_size=3, unique=True)),
            "axes": draw(st.dictionaries(st.sampled_from(["a", "b"]), st.floats(0, 1), max_size=2)),
            "series": draw(st.sampled_from(["", "s"])),
            "region": draw(st.sampled_from([None, "cn.zj", "cn.zj.hz"])),
            "rights": draw(st.sampled_from([[], [window]])),
            "age_rating": draw(st.sampled_from([0, 18])),
            "published_at": PUBLISHED,
        }
    )


def spoken(catalog: Catalog, row: int) -> dict[str, object]:
    """What the columns say of one row, in names instead of codes."""

    def name(words: Vocabulary, code: int) -> str:
        return words.names[code] if code >= 0 else ""

    return {
        "labels": {catalog.labels.names[c] for c in np.flatnonzero(catalog.label[row])},
        "axes": {n: catalog.axis[row, c] for n, c in catalog.axes.code.items() if catalog.axis[row, c]},
        "outlet": name(catalog.outlets, catalog.outlet[row]),
        "provider": name(catalog.providers, catalog.provider[row]),
        "topic": name(catalog.topics, catalog.topic[row]),
        "series": name(catalog.series_names, catalog.series[row]),
        "region": name(catalog.regions, catalog.region[row]),
        "hull": (catalog.start[row], catalog.until[row]),
        "windows": catalog.windows.get(row, ()),
        "age": catalog.age_rating[row],
    }


@given(st.lists(items(), max_size=12), st.integers(0, 12))
def test_patching_equals_building_anew(said: list[Item], cut: int) -> None:
    whole = Catalog.of(said)
    grown = Catalog.of(said[:cut]).patched(said[cut:], revision=7)
    assert grown.ids == whole.ids
    for row in range(len(whole)):
        assert grown.items[row] == whole.items[row]
        assert spoken(grown, row) == spoken(whole, row)


@given(st.lists(items(), max_size=12), st.lists(items(), max_size=4))
def test_rows_never_move_and_old_catalogues_do_not_change(said: list[Item], later: list[Item]) -> None:
    before = Catalog.of(said)
    was = [spoken(before, row) for row in range(len(before))]
    after = before.patched(later, revision=1)
    assert after.ids[: len(before)] == before.ids
    assert [spoken(before, row) for row in range(len(before))] == was


@given(st.lists(items(), max_size=12), st.sampled_from(["news", "news/local", "film", "new"]))
def test_a_label_means_its_subtree(said: list[Item], root: str) -> None:
    catalog = Catalog.of(said)
    expected = [any(x == root or x.startswith(root + "/") for x in item.labels) for item in catalog.items]
    assert catalog.label_subtree(root).tolist() == expected


@given(st.lists(items(), max_size=12), st.sampled_from(["cn", "cn.zj", "cn.zj.hz", "c"]))
def test_regions_and_outlets_mean_their_subtrees(said: list[Item], root: str) -> None:
    catalog = Catalog.of(said)
    assert catalog.outlet_subtree(root).tolist() == [within(item.outlet, root) for item in catalog.items]
    assert catalog.region_subtree(root).tolist() == [
        item.region is not None and within(item.region, root) for item in catalog.items
    ]


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("id", "has space"),
        ("title", {}),
        ("outlet", "CN/zj"),
        ("axes", {"a": 1.5}),
        ("published_at", "2026-01-01T00:00:00"),
        ("rights", [{"start": "2026-01-02T00:00:00Z", "until": "2026-01-01T00:00:00Z"}]),
        ("duration_s", float("nan")),
        ("colour", "red"),
    ],
)
def test_a_bad_item_is_refused_at_its_field(field: str, wrong: object) -> None:
    good = {"id": "i", "title": {"zh": "甲"}, "outlet": "cn", "published_at": "2026-01-01T00:00:00Z"}
    Item.model_validate(good)
    with pytest.raises(ValidationError) as refused:
        Item.model_validate({**good, field: wrong})
    assert refused.value.errors()[0]["loc"][0] == field
