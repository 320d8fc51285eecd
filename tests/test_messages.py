"""Message texts: the same codes and placeholders in both languages, no code missing, none unused."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

from recsys.domain.errors import Finding, schema_fault
from recsys.messages import ENGLISH, PLACEHOLDER, TERMS, Message, message, render

ROOT = Path(__file__).parents[1]
CHINESE = json.loads((ROOT / "serving/console/messages.zh.json").read_text("utf-8"))
MESSAGES = ROOT / "recsys/messages"
FORMS = {"", "quoted", "percent", "percent1", "count", "brief", *TERMS}
TREES = [
    (path, ast.parse(path.read_text("utf-8")))
    for package in ("recsys", "features", "training", "serving")
    for path in sorted((ROOT / package).rglob("*.py"))
    if path.parent != MESSAGES or path.name == "__init__.py"
]


def placeholders(text: str) -> set[str]:
    """Return the names of the placeholders."""
    return {name for name, _ in PLACEHOLDER.findall(text)}


def calls() -> Iterator[tuple[Path, ast.Call]]:
    """Yield every call of `message` in the packages."""
    for path, tree in TREES:
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "message":
                yield path, node


def test_both_languages_have_the_same_codes_and_placeholders() -> None:
    assert list(CHINESE) == list(ENGLISH)
    for code, english in ENGLISH.items():
        assert placeholders(CHINESE[code]) == placeholders(english), code


def test_texts_use_defined_formats_and_are_translated() -> None:
    for text in (*ENGLISH.values(), *CHINESE.values()):
        for _, form in PLACEHOLDER.findall(text):
            assert form in FORMS or re.fullmatch(r"[^|]+\|[^|]+", form), text
        assert not re.search("[{}]", PLACEHOLDER.sub("", text)), text
    for text in CHINESE.values():
        rest = PLACEHOLDER.sub("", text)
        assert not re.search("[A-Za-z]{2}", rest) or re.search("[一-鿿]", rest), text


def test_every_message_call_has_a_text_with_the_same_parameters() -> None:
    for path, call in calls():
        code = call.args[0]
        assert isinstance(code, ast.Constant), f"{path}:{call.lineno}: the code is not a literal"
        names = {keyword.arg for keyword in call.keywords}
        if None in names:  # more parameters come from a dictionary
            assert names - {None} <= placeholders(ENGLISH[code.value]), code.value
        else:
            assert names == placeholders(ENGLISH[code.value]), f"{path}:{call.lineno}: {code.value}"


def test_every_message_text_is_used() -> None:
    used = {
        node.value
        for _, tree in TREES
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert not ENGLISH.keys() - used


def test_a_message_survives_json_and_renders_in_both_languages() -> None:
    page = message("page_of_outlet", screen="tv", surface="home", outlet="cn.zj", region="cn")
    text = message(
        "nor_on_pages", pages=(message("page_amiss", page=page, amiss=message("items_missing", count=3)),), more=None
    )
    parsed = Message.model_validate_json(text.model_dump_json())
    assert parsed == text
    assert str(parsed) == "; nor on tv home of cn.zj in cn (3 too few)"
    assert render(parsed, CHINESE) == "；同样无法满足的还有 cn 的 cn.zj tvhome（少 3 条）"
    assert "message" not in text.model_dump()["params"]["pages"][0]


def test_the_renderer_formats_numbers() -> None:
    assert str(message("target_on_plan", share=0.421, planned=1)) == "on plan: 42% delivered, 100% planned by now"
    assert "1,234,568 of attention" in str(
        message("target_unreachable", attention=1234567.8, items=1, most=2.0, required=3.0)
    )
    assert "1 item at the top" in str(message("target_unreachable", attention=1.0, items=1, most=2.0, required=3.0))


def test_a_plain_text_has_the_code_text() -> None:
    finding = Finding("data.time", "not a time")
    assert (finding.code, finding.params, finding.message) == ("text", {"text": "not a time"}, "not a time")
    assert schema_fault({"type": "url_parsing", "msg": "Input should be a valid URL"}).code == "text"
