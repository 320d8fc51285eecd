"""The catalog as columns: patching equals rebuilding, rows never move, and invalid items are refused."""

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


def decode_row(catalog: Catalog, row: int) -> dict[str, object]:
    """Return the columns of one row, with names instead of codes."""

    def name(vocabulary: Vocabulary, code: int) -> str:
        return vocabulary.names[code] if code >= 0 else ""

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
def test_patching_equals_rebuilding(listed: list[Item], cut: int) -> None:
    whole = Catalog.of(listed)
    grown = Catalog.of(listed[:cut]).patched(listed[cut:], revision=7)
    assert grown.ids == whole.ids
    for row in range(len(whole)):
        assert grown.items[row] == whole.items[row]
        assert decode_row(grown, row) == decode_row(whole, row)


@given(st.lists(items(), max_size=12), st.lists(items(), max_size=4))
def test_rows_never_move_and_old_catalogs_do_not_change(listed: list[Item], later: list[Item]) -> None:
    before = Catalog.of(listed)
    expected = [decode_row(before, row) for row in range(len(before))]
    after = before.patched(later, revision=1)
    assert after.ids[: len(before)] == before.ids
    assert [decode_row(before, row) for row in range(len(before))] == expected


@given(st.lists(items(), max_size=12), st.sampled_from(["news", "news/local", "film", "new"]))
def test_a_label_includes_its_subtree(listed: list[Item], root: str) -> None:
    catalog = Catalog.of(listed)
    expected = [any(x == root or x.startswith(root + "/") for x in item.labels) for item in catalog.items]
    assert catalog.label_subtree(root).tolist() == expected


@given(st.lists(items(), max_size=12), st.sampled_from(["cn", "cn.zj", "cn.zj.hz", "c"]))
def test_regions_and_outlets_include_their_subtrees(listed: list[Item], root: str) -> None:
    catalog = Catalog.of(listed)
    assert catalog.outlet_subtree(root).tolist() == [within(item.outlet, root) for item in catalog.items]
    assert catalog.region_subtree(root).tolist() == [
        item.region is not None and within(item.region, root) for item in catalog.items
    ]


@pytest.mark.parametrize(
    ("field", "value"),
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
def test_an_invalid_item_is_refused_with_the_name_of_its_field(field: str, value: object) -> None:
    valid = {"id": "i", "title": {"zh": "甲"}, "outlet": "cn", "published_at": "2026-01-01T00:00:00Z"}
    Item.model_validate(valid)
    with pytest.raises(ValidationError) as error:
        Item.model_validate({**valid, field: value})
    assert error.value.errors()[0]["loc"][0] == field
