"""Fields accept one form of each value: visible names in normal form, RFC 3339 times, numbers and booleans as such."""

from __future__ import annotations

import json
import re
import unicodedata
from datetime import UTC, datetime
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from recsys.domain.catalog import Catalog
from recsys.domain.errors import PolicyError
from recsys.domain.fields import (
    STORED,
    Boolean,
    Code,
    Id,
    Integer,
    Label,
    Name,
    Number,
    QueryInteger,
    Text,
    Time,
    is_storable,
    printable,
)
from recsys.domain.item import Item
from recsys.guidance.policy.conditions import mask
from recsys.guidance.policy.policy import parse_policy

ITEM: dict[str, Any] = {
    "id": "a",
    "title": {"en": "A"},
    "outlet": "cn",
    "published_at": "2026-01-01T00:00:00Z",
}

# Unicode 16, DerivedCoreProperties.txt, Default_Ignorable_Code_Point, and the characters that are drawn blank
IGNORABLE = frozenset(
    [
        *(0xAD, 0x34F, 0x61C, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFEFF, 0xFFA0, 0x1D159),
        *(*range(0x180B, 0x1810), *range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x2070)),
        *(*range(0xFE00, 0xFE10), *range(0xFFF0, 0xFFFC), *range(0x1BCA0, 0x1BCA4), *range(0x1D173, 0x1D17B)),
        *range(0xE0000, 0xE1000),
    ]
)


def is_seen(character: str) -> bool:
    """The oracle: whether a reader sees a character. A blank counts as seen; its position is tested separately."""
    return character == " " or (
        ord(character) not in IGNORABLE and unicodedata.category(character) not in ("Cc", "Cs", "Zl", "Zp", "Zs")
    )


def appearance(text: str) -> str:
    """What a reader can tell apart: the visible characters in normal form, with single blanks between words."""
    return unicodedata.normalize("NFC", " ".join("".join(c if is_seen(c) else "" for c in text).split()))


def policy_text(**control: object) -> str:
    return json.dumps({"outlet": "cn", "controls": [control]})


def read(kind: Any, value: object) -> Any:
    return adapter(kind).validate_python(value)


@cache
def adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def accepted(kind: Any, value: object) -> bool:
    try:
        read(kind, value)
    except ValidationError:
        return False
    return True


odd_characters = st.sampled_from(
    sorted({*map(chr, IGNORABLE), *" \n\t\r\x00\x85\xa0\u2003\u2028\u202f\u3000\ufeff\ud83d\udc00\u0301é"})
)
words = st.text(st.sampled_from("news新闻é\u0301가\u1100\u1161 ") | odd_characters | st.characters(), max_size=8)


@given(words)
def test_an_accepted_name_is_what_a_reader_sees(text: str) -> None:
    for kind in (Name, Label, Id, Code):
        if accepted(kind, text):
            assert read(kind, text) == appearance(text)


@pytest.mark.parametrize("kind", [Name, Label, Id, Code])
def test_no_invisible_character_is_accepted_at_any_position(kind: Any) -> None:
    invisible = [chr(point) for point in range(0x110000) if point != 0x20 and not is_seen(chr(point))]
    assert len(invisible) > 6000
    assert [ascii(c) for c in invisible if accepted(kind, f"a{c}b")] == []
    for c in ["\xa0", "\n", "\u200b", "\u3164", " "]:
        assert not accepted(kind, f"{c}news")
        assert not accepted(kind, f"news{c}")
        assert not accepted(kind, f"a{c}{c}b")


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("label", ["café", "가요", "news/café"])
def test_a_block_holds_for_every_encoding_of_its_label(label: str, form: str) -> None:
    item = Item.model_validate({**ITEM, "labels": [unicodedata.normalize(form, label)]})
    policy_form = {"NFC": "NFD", "NFD": "NFC"}[form]
    where = f'{{label: "{unicodedata.normalize(policy_form, label)}"}}'
    policy = parse_policy(f"outlet: cn\ncontrols: [{{id: a, action: block, enforcement: legal, where: {where}}}]")
    (block,) = policy.controls
    assert mask(block.where, Catalog.of([item]), "cn").tolist() == [True]  # type: ignore[union-attr]


@pytest.mark.parametrize("odd", ["news ", "news\n", "news\xa0", "news\u200b", "ne\u00adws", "news\ufeff", "news /x"])
def test_items_and_policies_name_the_field_of_an_invisible_difference(odd: str) -> None:
    names = {"provider": odd, "topic": odd, "series": odd, "language": odd, "id": odd, "outlet": odd, "region": odd}
    if "/" in odd:
        names = {}
    for field, value in {**names, "labels": [odd]}.items():
        with pytest.raises(ValidationError) as caught:
            Item.model_validate({**ITEM, field: value})
        assert {error["loc"][0] for error in caught.value.errors()} == {field}
    for field in ("label", *(("provider", "series", "language", "item", "outlet", "region") if names else ())):
        with pytest.raises(PolicyError) as refused:
            parse_policy(policy_text(id="a", action="block", where={field: odd}))
        assert {finding.where for finding in refused.value.findings} == {f"controls[0].where.{field}[0]"}


def test_names_of_an_older_version_are_read_as_they_look() -> None:
    for old in ("news ", "ne\u200bws", " news\n", "news"):
        body = Item.model_validate(ITEM).model_copy(update={"labels": (old,), "topic": old}).model_dump_json()
        item = Item.model_validate_json(body, context=STORED)
        assert (item.labels, item.topic) == (("news",), "news")
    old_id = Item.model_validate(ITEM).model_copy(update={"id": "cafe\u0301\u200b"}).model_dump_json()
    assert Item.model_validate_json(old_id, context=STORED).id == "cafe\u0301\u200b"


@given(st.text(st.characters() | odd_characters, max_size=8))
def test_a_text_is_accepted_if_every_store_can_hold_it(text: str) -> None:
    def is_encodable() -> bool:
        try:
            return b"\0" not in text.encode()
        except UnicodeEncodeError:
            return False

    assert is_storable(text) == accepted(Text, text) == is_encodable()
    assert b"\0" not in printable(text).encode()
    assert (printable(text) == text) == is_encodable()


def test_only_rfc_3339_is_a_time() -> None:
    """Texts around the grammar of RFC 3339, section 5.6, with `datetime` as the oracle of the calendar."""
    grammar = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9:]{8}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})")
    parts = st.tuples(
        st.sampled_from(["2026-10-01", "20991231", "2026-02-30", "2026-1-1", "２０２６-10-01", "0001-01-01"]),
        st.sampled_from(["T", "t", " ", "_", ""]),
        st.sampled_from(["00:00:00", "00:00", "23:59:59", "24:00:01", "000000", ""]),
        st.sampled_from(["", ".5", ".123456789", ","]),
        st.sampled_from(["Z", "z", "+08:00", "+0800", "-23:59", ""]),
    ).map("".join)

    @given(parts | st.integers().map(str) | st.floats().map(str) | st.integers() | st.floats() | st.booleans())
    def check(value: object) -> None:
        if not accepted(Time, value):
            return
        assert isinstance(value, str)
        assert grammar.fullmatch(value)
        assert read(Time, value) == datetime.fromisoformat(value.upper())

    check()
    assert read(Time, "2026-10-01T08:00:00+08:00") == datetime(2026, 10, 1, tzinfo=UTC)


@pytest.mark.parametrize("odd", [20991231, "20991231", "4102444800", "2099-12-31", "2099-12-31T00:00:00", True, 1e9])
def test_items_and_policies_name_the_field_of_a_wrong_time(odd: object) -> None:
    times = [{"published_at": odd}, {"rights": [{"start": odd}]}, {"rights": [{"until": odd}]}]
    for fields in times:
        with pytest.raises(ValidationError) as caught:
            Item.model_validate({**ITEM, **fields})
        (error,) = caught.value.errors()
        assert error["loc"][-1] in ("published_at", "start", "until")
    block = {"id": "a", "action": "block", "where": {"label": "x"}}
    target = {**block, "action": "exposure_target", "impressions": 5, "until": "2027-01-01T00:00:00Z"}
    for control, where in [
        ({**block, "active": {"from": odd}}, "active.from"),
        ({**block, "active": {"until": odd}}, "active.until"),
        ({**target, "until": odd}, "until"),
        ({**target, "from": odd}, "from"),
    ]:
        with pytest.raises(PolicyError) as refused:
            parse_policy(policy_text(**control))
        assert {finding.where for finding in refused.value.findings} == {f"controls[0].{where}"}


@given(st.one_of(st.integers(), st.floats(), st.booleans(), st.text("0123456789.-+eTtrueyn _", max_size=6), st.none()))
def test_numbers_and_booleans_are_not_converted(value: object) -> None:
    assert accepted(Integer, value) == (isinstance(value, int) and not isinstance(value, bool))
    assert accepted(Boolean, value) == isinstance(value, bool)
    if accepted(Number, value):
        assert isinstance(value, int | float)
        assert not isinstance(value, bool)
        assert np.isnan(read(Number, value)) or read(Number, value) == value
    if isinstance(value, str):
        assert accepted(QueryInteger, value) == bool(re.fullmatch("-?[0-9]+", value))
