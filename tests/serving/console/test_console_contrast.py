"""Color contrast of the console in the light and dark schemes, after WCAG 2.1 (success criteria 1.4.3 and 1.4.11)."""

from __future__ import annotations

import re
from importlib.resources import files
from itertools import product

import pytest

CSS = files("serving.console").joinpath("console.css").read_text("utf-8")
COLORS = dict(re.findall(r"--(\w+): light-dark\((#\w{6}, #\w{6})\);", CSS))
TEXT_COLORS = ("text", "muted", "accent", "good", "warn", "bad")
BACKGROUNDS = ("ground", "card", "tint", "added", "gone")


def luminance(color: str) -> float:
    """Return the relative luminance of #rrggbb in [0, 1], as defined in WCAG 2.1."""
    parts = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(a: str, b: str, scheme: int) -> float:
    """Return the contrast ratio of two named colors."""
    low, high = sorted(luminance(COLORS[name].split(", ")[scheme]) for name in (a, b))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_and_field_borders_have_enough_contrast(scheme: int) -> None:
    pale = {pair: ratio for pair in product(TEXT_COLORS, BACKGROUNDS) if (ratio := contrast(*pair, scheme)) < 4.5}
    assert not pale, "1.4.3 requires 4.5 to 1"
    assert contrast("card", "accent", scheme) >= 4.5, "the text of a primary button"
    assert min(contrast("edge", background, scheme) for background in ("card", "ground")) >= 3, "1.4.11 requires 3 to 1"


def test_every_color_is_defined_for_both_schemes() -> None:
    assert {*TEXT_COLORS, *BACKGROUNDS, "edge", "line"} <= COLORS.keys()
    assert not re.search(r"(?:background|color|border[a-z-]*): *#\w{3,8}", CSS), "a color for only one scheme"
