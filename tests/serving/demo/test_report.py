"""The report of the demo fits the terminal and truncates no id."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from serving.demo.report import receipt

IDS = ("mainstream-floor", "public-service-floor", "local-top")
PAGE = {
    "receipt": {
        "value": 1.234,
        "utility": 0.9,
        "utility_without": 1.0,
        "expected_plays": 0.6,
        "expected_plays_without": 0.8,
        "proven": False,
        "gap": 0.001,
        "price": [{"control_id": IDS[1], "play_equivalents": 0.00001, "how": "estimate"}],
        "controls": [
            {"id": IDS[0], "origin": "cn", "enforcement": "legal", "required": {"at_least": 3}, "achieved": 3},
            {"id": IDS[1], "origin": "cn.zj.hz", "enforcement": "editorial", "required": {"at_most": 2, "within": 3}},
            {"id": IDS[2], "origin": "cn.zj.hz", "enforcement": "mandatory", "required": {"slot": 1, "at_least": None}},
        ],
    }
}


@pytest.mark.parametrize("width", [60, 80, 140])
def test_a_receipt_truncates_no_id(width: int) -> None:
    for line in PAGE["receipt"]["controls"]:  # type: ignore[attr-defined]
        line |= {"action": "quota", "status": "infeasible", "achieved": 2}
    printed = io.StringIO()
    receipt(Console(file=printed, width=width), PAGE)
    lines = printed.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    for name in IDS:
        assert any(name in line for line in lines)
    if width >= 80:
        row = next(line for line in lines if IDS[1] in line)
        assert " ".join(row.split()) == "public-service-floor cn.zj.hz editorial ≤ 2 in 3 2 infeasible < 0.0001"
