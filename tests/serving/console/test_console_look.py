"""The console can be read, in light and in dark: contrasts of WCAG 2.1 (success criteria 1.4.3 and 1.4.11)."""

from __future__ import annotations

import re
from importlib.resources import files
from itertools import product

import pytest

CSS = files("serving.console").joinpath("console.css").read_text("utf-8")
COLOURS = dict(re.findall(r"--(\w+): light-dark\((#\w{6}, #\w{6})\);", CSS))
WORDS = ("text", "muted", "accent", "good", "warn", "bad")
GROUNDS = ("ground", "card", "tint", "added", "gone")


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb, in [0, 1], as WCAG 2.1 defines it."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str, scheme: int) -> float:
    low, high = sorted(luminance(COLOURS[name].split(", ")[scheme]) for name in (one, other))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_words_can_be_read_on_every_ground_and_fields_have_an_edge(scheme: int) -> None:
    pale = {pair: said for pair in product(WORDS, GROUNDS) if (said := contrast(*pair, scheme)) < 4.5}
    assert not pale, "1.4.3 asks for 4.5 to 1"
    assert contrast("card", "accent", scheme) >= 4.5, "the words of a primary button"
    assert min(contrast("edge", ground, scheme) for ground in ("card", "ground")) >= 3, "1.4.11 asks for 3 to 1"


def test_a_scheme_says_each_colour_twice() -> None:
    assert {*WORDS, *GROUNDS, "edge", "line"} <= COLOURS.keys()
    assert not re.search(r"(?:background|color|border[a-z-]*): *#\w{3,8}", CSS), "a colour of one scheme only"
