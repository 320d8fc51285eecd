"""Policy text: the YAML dialect, rejected text with its line, and the limited cost of hostile text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from recsys.domain.errors import PolicyError
from recsys.guidance.policy.yaml_text import LEVELS_MAX, SIZE_MAX, append_control, read_document

# PyYAML writes 1e3 without quotes, because YAML 1.1 reads it as text; this reader reads a number.
TEXTS = (
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
    | st.sampled_from(
        ["no", "on", "True", "null", "~", "", "010", "0x1F", "1_0", "12:30", "+08:00", "2026-10-01", ".inf", "- a", "#"]
    )
).filter(lambda text: not re.search(r"[\d.][eE]", text))
SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS
)
DATA = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4))


@given(st.dictionaries(TEXTS, DATA, max_size=4), st.booleans())
def test_json_and_yaml_text_of_the_same_data_reads_as_that_data(data: dict[str, Any], flow: bool) -> None:
    assert read_document(json.dumps(data)) == data
    assert read_document("---\n" + yaml.safe_dump(data, default_flow_style=flow)) == data


def test_unquoted_scalars_are_not_converted_as_in_yaml_1_1() -> None:
    texts = [
        "no",
        "on",
        "y",
        "010",
        "0o7",
        "0x10",
        "0b1",
        "1_0",
        "12:30",
        "+08:00",
        "2026-10-01",
        ".inf",
        ".nan",
        "<<",
        "=",
    ]
    assert read_document("".join(f"- {text}\n" for text in texts)) == texts
    assert read_document("- 10\n- -2.5e-1\n- .5\n- true\n- FALSE\n- Null\n- ~\n-\n") == [
        10, -0.25, 0.5, True, False, None, None, None,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "where", "word"),
    [
        ("a: 1\nb: &x [1]\nc: [*x]", "line 3", "aliases"),
        ("a: 1\nb: !!python/name:os.system", "line 2", "tags (!!python/name:os.system)"),
        ("a: !x [1]", "line 1", "tags (!x)"),
        ("a: 1\n---\nb: 2", "line 2", "a policy is one document"),
        ("a: 1\n? [b]\n: 2", "line 2", "cannot be a key"),
        ("a:\n  b: 1\n  c: 2\n  b: 3", "line 4", "'b' is defined twice"),
        ("a: [1\n\n\n", "line 1", "the [ opened here is not closed"),
        ("a: 1\nb: \ud800", "line 2", "U+D800"),
        ("a: 1\nb: \0", "line 2", "U+0000"),
        ("a: 你\nb: \x07", "line 2", "control characters"),
        ("a:\n" + "".join(f"{' ' * n}-\n" for n in range(1, 500)), f"line {LEVELS_MAX + 1}", "levels deep"),
    ],
)
def test_rejected_text_is_reported_with_its_line(text: str, where: str, word: str) -> None:
    with pytest.raises(PolicyError) as error:
        read_document(text)
    (finding,) = error.value.findings
    assert finding.where == where
    assert word in finding.message


def test_text_of_the_maximum_depth_is_read() -> None:
    for levels in (LEVELS_MAX - 1, LEVELS_MAX):
        text = "[" * levels + "]" * levels
        if levels < LEVELS_MAX:
            assert read_document(f"a: {text}")
        else:
            with pytest.raises(PolicyError, match="levels deep"):
                read_document(f"a: {text}")


@pytest.mark.parametrize(
    "text",
    [
        "a: [" + "1," * 131_000 + "]",
        "a: [" + "{a: b}," * 37_000 + "]",
        "? " * 131_000,
        "- " * 131_000,
        "a: " + "{a: " * 65_000,
    ],
    ids=["numbers", "mappings", "keys", "sequences", "open braces"],
)
def test_hostile_text_is_parsed_once_and_only_up_to_the_first_error(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wide text costs one event per member and end; deep text costs the events of the permitted levels."""
    events = 0

    def count_events(*args: Any, **options: Any) -> Iterator[Any]:
        nonlocal events
        for event in parse(*args, **options):
            events += 1
            yield event

    parse = yaml.parse
    monkeypatch.setattr("yaml.parse", count_events)
    with suppress(PolicyError):
        read_document(text)
    wide = text.startswith("a: [")
    assert events <= (text.count(",") * (4 if "b" in text else 1) + 20 if wide else 3 * LEVELS_MAX)


def test_text_above_the_size_limit_is_rejected_before_it_is_parsed() -> None:
    with pytest.raises(PolicyError, match="has more than 1,048,576 characters"):
        read_document("[" * (SIZE_MAX + 1))


def test_no_control_is_appended_to_text_that_cannot_be_read() -> None:
    control = {"id": "b", "share": 0.02}
    for text in (
        "controls: [" + "[" * 100_000,
        "controls: [{id: a}]\ncontrols: [{id: c}]",
        "controls: []",
        "outlet: cn",
        "[]",
        "",
    ):
        assert append_control(text, control) is None
