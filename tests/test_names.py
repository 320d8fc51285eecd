"""Identifiers are nouns and verbs of the field: no pronoun, participle or adverb as a name, no metaphor."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("recsys", "features", "training", "serving", "benchmarks", "tests")
TEXTS = ("*.md", "docs/**/*.md", *(f"{folder}/**/*.{suffix}" for folder in FOLDERS for suffix in ("py", "js", "yaml")))
JAVASCRIPT = sorted((ROOT / "serving" / "console").glob("*.js"))

BANNED_PARTS, BANNED_WHOLE, BANNED_WORDS = (
    set(re.sub(r"(?m)^#.*$", "", section).split())
    for section in (ROOT / "tests" / "banned_names.txt").read_text("utf-8").split("\n\n")
)
BANNED_NAMES = BANNED_PARTS | BANNED_WHOLE


def identifiers(source: str) -> Iterator[tuple[str, int]]:
    """Yield each name that a Python source defines, with its line: definitions, parameters, variables, attributes."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name, node.lineno
            case ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name, node.lineno
            case ast.alias(asname=str(name)) | ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)):
                yield name, node.lineno


def is_banned(name: str) -> bool:
    """Whether a name is, or contains, a word that says nothing about what it stands for. Dunder methods are exempt."""
    if name.startswith("__") and name.endswith("__"):
        return False
    plain = name.strip("_")
    parts = {part.lower() for part in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", plain)}
    return plain.lower() in BANNED_NAMES or bool(parts & BANNED_PARTS)


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_identifier_is_a_banned_word(folder: str) -> None:
    banned = [
        f"{path.relative_to(ROOT)}:{line} {name}"
        for path in sorted((ROOT / folder).rglob("*.py"))
        for name, line in identifiers(path.read_text("utf-8"))
        if is_banned(name) and not (folder == "tests" and name.startswith("test_"))
    ]
    if banned:
        pytest.fail(f"{len(banned)} identifiers are no terms of the field:\n" + "\n".join(banned), pytrace=False)


@pytest.mark.parametrize("path", JAVASCRIPT, ids=lambda path: path.name)
def test_no_identifier_of_the_console_is_a_banned_word(path: Path) -> None:
    defined = re.compile(
        r"\b(?:const|let|var|function|class)\s+(?:\{[^}=]*\}|\[[^\]=]*\]|\w+)|\((\w+(?:, \w+)*)\) =>|\b(\w+) =>"
    )
    names = {name for match in defined.finditer(path.read_text("utf-8")) for name in re.findall(r"\w+", match.group(0))}
    assert sorted(name for name in names if is_banned(name)) == []


def test_no_text_contains_a_banned_word() -> None:
    pattern = re.compile(rf"\b({'|'.join(BANNED_WORDS)})\b", re.IGNORECASE)
    texts = [path for pattern in TEXTS for path in ROOT.glob(pattern) if path.name not in ("CHANGELOG.md",)]
    assert len(texts) > 500
    found_words = {
        f"{path.relative_to(ROOT)}:{number} {match.group()}"
        for path in texts
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        for match in pattern.finditer(line)
    }
    assert not found_words


def test_banned_words_are_found_wherever_they_stand() -> None:
    source = "def said_causes(one, *, limit):\n    kept: int = 1\n    self.worth = kept\n    for place in []: pass\n"
    assert {name for name, _ in identifiers(source) if is_banned(name)} == {
        "said_causes",
        "one",
        "kept",
        "worth",
        "place",
    }
    assert all(map(is_banned, ["KeptOff", "_told", "UPTO", "ones"]))
    assert not any(
        map(is_banned, ["__all__", "dead_letters", "letter", "placement", "one_hot", "bound", "NotFound", "limit"])
    )
