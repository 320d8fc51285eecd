"""Bounds of items and catalogs: at a bound an item is accepted, beyond it refused with the bound's name."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.importers.catalog import parse_item
from features.importers.item_bounds import AXES_MAX, ENTRIES_MAX, LABELS_MAX, NAME_MAX, TEXT_MAX, NewNames
from recsys.domain.catalog import Catalog
from recsys.domain.errors import FINDINGS_MAX, Finding, ItemError
from recsys.domain.item import Item

BASE = {"id": "a", "title": {"en": "A"}, "outlet": "cn", "published_at": "2026-10-01T08:00:00Z"}


def filled(field: str, count: int) -> Any:
    """Return a field with this many entries."""
    if field in ("title", "summary"):
        return {f"l{n}": "t" for n in range(count)}
    if field == "axes":
        return {f"a{n}": 0.5 for n in range(count)}
    entry = {"labels": "l{}", "regions": "cn.r{}"}.get(field)
    if entry:
        return [entry.format(n) for n in range(count)]
    return [{"rights": {}, "formats": "audio", "screens": "tv"}[field]] * count


def changed(field: str, value: object) -> dict[str, Any]:
    inside = field in ("regions", "screens")
    return {**BASE, **({"rights": [{field: value}]} if inside else {field: value})}


def path_of(field: str) -> str:
    return f"items[0].rights.0.{field}" if field in ("regions", "screens") else f"items[0].{field}"


@pytest.mark.parametrize("field", ENTRIES_MAX)
def test_a_list_is_accepted_up_to_its_bound(field: str) -> None:
    maximum = ENTRIES_MAX[field]
    parse_item(changed(field, filled(field, maximum)), "items[0]")
    for count in (maximum + 1, 30_000):
        with pytest.raises(ItemError) as refused:
            parse_item(changed(field, filled(field, count)), "items[0]")
        (finding,) = refused.value.findings
        assert (finding.where, finding.message) == (path_of(field), f"must have at most {maximum} entries")


@pytest.mark.parametrize("field", TEXT_MAX)
def test_a_text_is_accepted_up_to_its_bound(field: str) -> None:
    def of(length: int) -> dict[str, Any]:
        text = "t" * length
        return {**BASE, field: {"en": text} if field in ("title", "summary") else text}

    parse_item(of(TEXT_MAX[field]), "items[0]")
    with pytest.raises(ItemError, match=f"items\\[0\\].{field}.*at most {TEXT_MAX[field]} characters"):
        parse_item(of(TEXT_MAX[field] + 1), "items[0]")


def test_names_and_unknown_fields_are_bounded() -> None:
    with pytest.raises(ItemError, match=f"axes: contains a name of 101 characters; at most {NAME_MAX}"):
        parse_item({**BASE, "axes": {"a" * 101: 0.5}}, "items[0]")
    with pytest.raises(ItemError, match="items\\[0\\]: has 20,004 fields; at most 50"):
        parse_item({**BASE, **{f"x{n}": n for n in range(20_000)}}, "items[0]")
    with pytest.raises(ItemError, match=r"rights\.0: has 20,000 fields; at most 50"):
        parse_item({**BASE, "rights": [{f"x{n}": n for n in range(20_000)}]}, "items[0]")


def test_the_regions_of_all_windows_are_bounded() -> None:
    windows = [{"regions": filled("regions", 500)}] * 2
    parse_item({**BASE, "rights": windows}, "items[0]")
    with pytest.raises(ItemError, match=r"items\[0\]\.rights: the windows list 1,001 regions; at most 1,000"):
        parse_item({**BASE, "rights": [*windows, {"regions": ["cn"]}]}, "items[0]")


ENTRIES = st.sampled_from([None, True, 7, "", "cn", {}, {"zzz": 1}, {"regions": [""] * 90}, [], "x" * 300])


@given(
    st.dictionaries(
        st.sampled_from([*BASE, *ENTRIES_MAX, *TEXT_MAX, "zzz"]),
        st.tuples(ENTRIES, st.integers(0, 300), st.sampled_from(["list", "mapping", "single"])),
    )
)
def test_any_item_is_accepted_or_refused_with_a_bounded_number_of_findings(fields: dict[str, Any]) -> None:
    raw = {
        name: [entry] * count
        if form == "list"
        else {f"k{n}": entry for n in range(count)}
        if form == "mapping"
        else entry
        for name, (entry, count, form) in fields.items()
    }
    findings: tuple[Finding, ...] = ()
    try:
        parse_item({**BASE, **raw}, "items[0]")
    except ItemError as error:
        findings = error.findings or (Finding("", "none"),) * 1000
    assert len(findings) <= FINDINGS_MAX + 1


@pytest.mark.parametrize(("field", "maximum"), [("axes", AXES_MAX), ("labels", LABELS_MAX)])
def test_a_catalog_has_a_bounded_number_of_axes_and_labels(field: str, maximum: int) -> None:
    def item(*names: str) -> Item:
        values = dict.fromkeys(names, 0.5) if field == "axes" else names
        return Item.model_validate({**BASE, field: values})

    names = [f"n{n}" for n in range(maximum - 2)]
    batch = NewNames(Catalog.of([item(*names)]))
    assert batch.add(item("new-1", "n0")) is None
    assert batch.add(item("new-1", "new-2")) is None
    full = batch.add(item("new-2", "new-3"))
    assert full is not None
    assert (full.where, f"{maximum:,} {field}" in full.message) == (field, True)
    assert batch.add(item("new-2", "n1")) is None, "items with known names are still accepted"
