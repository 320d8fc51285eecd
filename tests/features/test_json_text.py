"""Broken text in one entry of a JSON list leaves the other entries as a strict parser reads them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.json_text import find_unstorable, parse_json

plain = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(plain),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(plain, max_size=5), inner, max_size=3),
    max_leaves=6,
)
broken = st.sampled_from(
    [b'"\\ud83d"', b'"tv-\\udc00x"', b'"\xf0\x9f"', b'"\xd4\xc4"', b'{"\\ud83d": 1}', b'["a", "\xed\xa0\xbd"]']
)


@given(st.lists(values, max_size=4), st.data())
def test_other_entries_are_read_unchanged(entries: list[Any], data: st.DataObject) -> None:
    texts = [json.dumps(entry, ensure_ascii=data.draw(st.booleans())).encode() for entry in entries]
    index = data.draw(st.integers(0, len(entries)))
    texts.insert(index, data.draw(broken))
    parsed = parse_json(b"[" + b",".join(texts) + b"]")
    assert find_unstorable(parsed[index]) is not None
    del parsed[index]
    assert parsed == entries
    assert find_unstorable(parsed) is None


@pytest.mark.parametrize("raw", [b"{", b"[NaN]", b"\xff", b"[" * 5000, b'["\\ud83d", NaN]', b'["\\ud83d"'])
def test_other_faults_are_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_json(raw)
