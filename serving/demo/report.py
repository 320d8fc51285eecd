"""What the demo tells a person at the end, and the same figures as one JSON line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from serving.demo.visit import Visits

SIGNS = {"at_least": "≥", "first_slots": "in first", "at_most": "≤", "within": "in", "slot": "slot"}
STATUS = {"active": "shaped it"}
"""What people read where the API's word also is a enforcement."""

SHOWN_LABELS = ("mainstream", "public-service", "local", "commercial", "film")


def side_by_side(
    console: Console, viewer: str, free: dict[str, Any], guided: dict[str, Any], titles: Mapping[str, str]
) -> None:
    """One viewer's page without and with guidance; `titles` by item id say what a reason means."""
    table = Table(title=f"Home page of {viewer} on mobile, without and with guidance", title_justify="left")
    table.add_column("", justify="right")
    table.add_column("without guidance", max_width=44, overflow="fold")
    table.add_column("with guidance", max_width=56, overflow="fold")
    table.add_column("because of", style="cyan", max_width=34)
    before = {slot["item"]["id"] for slot in free["items"]}
    weighed = {move["item_id"] for move in guided["receipt"]["moved"] if move["cause"] == "weights"}
    for left, right in zip(free["items"], guided["items"], strict=False):
        mark = "" if right["item"]["id"] in before else "[green]+ [/green]"
        cause = ", ".join(right["control_ids"]) or _reason(right["reasons"][0], titles)
        if right["item"]["id"] in weighed and right["item"]["id"] not in before:
            cause = "editors' weights"
        table.add_row(str(right["slot"]), _title(left["item"]), mark + _title(right["item"]), cause)
    console.print(table)


def receipt(console: Console, page: dict[str, Any]) -> None:
    """The receipt of a page as a table."""
    r = page["receipt"]
    proof = "proven best" if r["proven"] else f"at most {100 * r['gap']:.2f} % below the best"
    title = f"Its receipt: value {r['value']:.3f} play equivalents, {proof}.\n{cost_of_guidance(r)}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for heading in ("control", "of", "enforcement", "asked", "has", "status", "costs"):
        table.add_column(heading, no_wrap=heading in ("control", "of"), overflow="fold")
    prices = {price["control_id"]: price for price in r["price"]}
    for control in r["controls"]:
        price = prices.get(control["id"])
        colour = "green" if control["status"] in ("met", "active") else "red"
        table.add_row(
            control["id"],
            control["origin"],
            control["enforcement"],
            " ".join(f"{SIGNS[word]} {n}" for word, n in control["required"].items() if n is not None),
            _has(control),
            f"[{colour}]{STATUS.get(control['status'], control['status'])}[/{colour}]",
            _price(price["play_equivalents"], price["how"] == "resolved", control["action"]) if price else "",
        )
    console.print(table)


def cost_of_guidance(receipt: dict[str, Any]) -> str:
    """What guidance changes on a page, in utility and in expected plays.

    >>> plays = {"expected_plays": 0.2, "expected_plays_without": 0.25}
    >>> cost_of_guidance({"utility": 0.9, "utility_without": 1.0, **plays})
    'With guidance: utility -10.0% (1.000 to 0.900),\\n  expected plays -20.0% (0.250 to 0.200)'
    """
    parts = []
    for field, words in (("utility", "utility"), ("expected_plays", "expected plays")):
        before, after = receipt[f"{field}_without"], receipt[field]
        change = f"{after / before - 1:+.1%} " if before > 0 else ""
        parts.append(f"{words} {change}({before:.3f} to {after:.3f})")
    return "With guidance: " + ",\n  ".join(parts)


def _has(control: dict[str, Any]) -> str:
    """What stands on the page, of a floor on its first slots also how many stand there.

    >>> _has({"achieved": 4, "achieved_first": 3}), _has({"achieved": 4})
    ('3, 4 in all', '4')
    """
    early = control.get("achieved_first")
    return str(control["achieved"]) if early is None else f"{early}, {control['achieved']} in all"


def _price(amount: float, exact: bool, action: str = "") -> str:
    """What a control costs, in play equivalents, to four places; estimates err on the high side, of a pin either way.

    >>> _price(0.02468, True), _price(0.02468, False), _price(0.0, True), _price(0.00001, False)
    ('0.0247', '≤ 0.0247', '0', '< 0.0001')
    >>> _price(0.02468, False, "pin")
    '≈ 0.0247'
    """
    if amount < 0.0001:
        return "0" if exact and amount <= 0 else "< 0.0001"
    return f"{'' if exact else '≈ ' if action == 'pin' else '≤ '}{amount:.4f}"


def shares(page: dict[str, Any]) -> dict[str, float]:
    """Share of each label's subtree on the page."""
    counts = Counter(label for slot in page["items"] for label in {x.split("/")[0] for x in slot["item"]["labels"]})
    return {label: round(counts[label] / max(len(page["items"]), 1), 3) for label in SHOWN_LABELS}


def figures(
    learned: dict[str, Any], visits: Visits, free: dict[str, Any], guided: dict[str, Any], seconds: dict[str, float]
) -> dict[str, Any]:
    """Everything of step 4 that is a number."""
    hard = ("legal", "mandatory")
    held = all(c["status"] in ("met", "active") for c in guided["receipt"]["controls"] if c["enforcement"] in hard)
    return {
        "training": learned,
        "pages": visits.pages,
        "events": visits.events,
        "latency_ms": {"p50": round(visits.quantile_ms(0.5), 2), "p99": round(visits.quantile_ms(0.99), 2)},
        "fallback_levels": visits.fallback_levels,
        "controls": visits.statuses,
        "controls_that_gave_way": visits.relaxed,
        "controls_broken_undeclared": len(visits.undeclared),
        "guided_page_keeps_hard_controls": held,
        "mean_gap": round(sum(visits.gaps) / max(len(visits.gaps), 1), 6),
        **{
            field: guided["receipt"][field]
            for field in ("utility", "utility_without", "expected_plays", "expected_plays_without")
        },
        "shares_without_guidance": shares(free),
        "shares_with_guidance": shares(guided),
        "seconds": {step: round(took, 1) for step, took in seconds.items()},
    }


def summary(console: Console, told: dict[str, Any]) -> None:
    """The figures as a table for people."""
    table = Table(title="What happened", title_justify="left", show_header=False)
    table.add_column(style="bold")
    table.add_column()
    for name, worth in told["training"]["models"].items():
        table.add_row(f"nDCG@10 {name}", f"{worth['ndcg_at_10']:.4f}")
    table.add_row(
        "pages served",
        f"{told['pages']}  ({', '.join(f'{n} {level}' for level, n in told['fallback_levels'].items())})",
    )
    table.add_row("page latency", f"p50 {told['latency_ms']['p50']} ms, p99 {told['latency_ms']['p99']} ms, over HTTP")
    table.add_row(
        "controls on those pages",
        ", ".join(f"{n} {STATUS.get(status, status)}" for status, n in told["controls"].items()),
    )
    for status, ids in told["controls_that_gave_way"].items():
        table.add_row(f"  {status}", ", ".join(f"{n} {control_id}" for control_id, n in ids.items()))
    table.add_row("broken without a word", str(told["controls_broken_undeclared"]))
    for heading, key in (("without guidance", "shares_without_guidance"), ("with guidance", "shares_with_guidance")):
        table.add_row(f"page {heading}", ", ".join(f"{label} {share:.0%}" for label, share in told[key].items()))
    table.add_row("seconds", ", ".join(f"{step} {took}" for step, took in told["seconds"].items()))
    console.print(table)


def _reason(code: str, titles: Mapping[str, str]) -> str:
    """A reason code in words."""
    word, _, item_id = code.partition(":")
    return f"like {titles.get(item_id, item_id)}" if item_id else word.replace("_", " ")


def _title(item: dict[str, Any]) -> str:
    titles = item["title"]
    return " · ".join(titles[language] for language in ("zh", "en") if language in titles)
