"""The report of the demo: tables for the terminal, and the same figures for the JSON line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from serving.demo.visit import Visits

SIGNS = {"at_least": "≥", "first_slots": "in first", "at_most": "≤", "within": "in", "slot": "slot"}
SHOWN_LABELS = ("mainstream", "public-service", "local", "commercial", "film")


def side_by_side(
    console: Console, viewer: str, free: dict[str, Any], guided: dict[str, Any], titles: Mapping[str, str]
) -> None:
    """Print the page of a viewer without and with guidance; `titles` by item id explain the reasons."""
    table = Table(title=f"Home page of {viewer} on mobile, without and with guidance", title_justify="left")
    table.add_column("", justify="right")
    table.add_column("without guidance", max_width=44, overflow="fold")
    table.add_column("with guidance", max_width=56, overflow="fold")
    table.add_column("reason", style="cyan", max_width=34)
    before = {slot["item"]["id"] for slot in free["items"]}
    weighted = {move["item_id"] for move in guided["receipt"]["moved"] if move["cause"] == "weights"}
    for free_slot, guided_slot in zip(free["items"], guided["items"], strict=False):
        mark = "" if guided_slot["item"]["id"] in before else "[green]+ [/green]"
        cause = ", ".join(guided_slot["control_ids"]) or _reason(guided_slot["reasons"][0], titles)
        if guided_slot["item"]["id"] in weighted and guided_slot["item"]["id"] not in before:
            cause = "editors' weights"
        table.add_row(str(guided_slot["slot"]), _title(free_slot["item"]), mark + _title(guided_slot["item"]), cause)
    console.print(table)


def receipt(console: Console, page: dict[str, Any]) -> None:
    """Print the receipt of a page as a table."""
    r = page["receipt"]
    proof = "proven optimal" if r["proven"] else f"at most {100 * r['gap']:.2f} % below the optimum"
    title = f"Receipt: page value {r['value']:.3f} play equivalents, {proof}.\n{cost_of_guidance(r)}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for heading in ("control", "of", "level", "requires", "has", "status", "price"):
        table.add_column(heading, no_wrap=heading in ("control", "of"), overflow="fold")
    prices = {price["control_id"]: price for price in r["price"]}
    for control in r["controls"]:
        price = prices.get(control["id"])
        color = "green" if control["status"] in ("met", "active") else "red"
        table.add_row(
            control["id"],
            control["origin"],
            control["enforcement"],
            " ".join(f"{SIGNS[field]} {n}" for field, n in control["required"].items() if n is not None),
            _has(control),
            f"[{color}]{control['status']}[/{color}]",
            _price(price["play_equivalents"], price["how"] == "resolved", control["action"]) if price else "",
        )
    console.print(table)


def cost_of_guidance(receipt: dict[str, Any]) -> str:
    """Format the change of utility and expected plays that guidance causes on a page.

    >>> plays = {"expected_plays": 0.2, "expected_plays_without": 0.25}
    >>> cost_of_guidance({"utility": 0.9, "utility_without": 1.0, **plays})
    'With guidance: utility -10.0% (1.000 to 0.900),\\n  expected plays -20.0% (0.250 to 0.200)'
    """
    parts = []
    for field, label in (("utility", "utility"), ("expected_plays", "expected plays")):
        before, after = receipt[f"{field}_without"], receipt[field]
        change = f"{after / before - 1:+.1%} " if before > 0 else ""
        parts.append(f"{label} {change}({before:.3f} to {after:.3f})")
    return "With guidance: " + ",\n  ".join(parts)


def _has(control: dict[str, Any]) -> str:
    """Format the number of items on the page; for a minimum on the first slots, the number there comes first.

    >>> _has({"achieved": 4, "achieved_first": 3}), _has({"achieved": 4})
    ('3, 4 in all', '4')
    """
    early = control.get("achieved_first")
    return str(control["achieved"]) if early is None else f"{early}, {control['achieved']} in all"


def _price(amount: float, exact: bool, action: str = "") -> str:
    """Format the price of a control in play equivalents. Estimates are upper bounds, except for pins.

    >>> _price(0.02468, True), _price(0.02468, False), _price(0.0, True), _price(0.00001, False)
    ('0.0247', '≤ 0.0247', '0', '< 0.0001')
    >>> _price(0.02468, False, "pin")
    '≈ 0.0247'
    """
    if amount < 0.0001:
        return "0" if exact and amount <= 0 else "< 0.0001"
    return f"{'' if exact else '≈ ' if action == 'pin' else '≤ '}{amount:.4f}"


def shares(page: dict[str, Any]) -> dict[str, float]:
    """Return the share of each label's subtree on the page."""
    counts = Counter(label for slot in page["items"] for label in {x.split("/")[0] for x in slot["item"]["labels"]})
    return {label: round(counts[label] / max(len(page["items"]), 1), 3) for label in SHOWN_LABELS}


def figures(
    training: dict[str, Any], visits: Visits, free: dict[str, Any], guided: dict[str, Any], seconds: dict[str, float]
) -> dict[str, Any]:
    """Return the figures of the demo as a JSON object."""
    hard = ("legal", "mandatory")
    hard_controls_met = all(
        c["status"] in ("met", "active") for c in guided["receipt"]["controls"] if c["enforcement"] in hard
    )
    return {
        "training": training,
        "pages": visits.pages,
        "events": visits.events,
        "latency_ms": {"p50": round(visits.quantile_ms(0.5), 2), "p99": round(visits.quantile_ms(0.99), 2)},
        "fallback_levels": visits.fallback_levels,
        "controls": visits.statuses,
        "controls_relaxed": visits.relaxed,
        "controls_broken_undeclared": len(visits.undeclared),
        "guided_page_keeps_hard_controls": hard_controls_met,
        "mean_gap": round(sum(visits.gaps) / max(len(visits.gaps), 1), 6),
        **{
            field: guided["receipt"][field]
            for field in ("utility", "utility_without", "expected_plays", "expected_plays_without")
        },
        "shares_without_guidance": shares(free),
        "shares_with_guidance": shares(guided),
        "seconds": {step: round(duration, 1) for step, duration in seconds.items()},
    }


def summary(console: Console, figures: dict[str, Any]) -> None:
    """Print the figures as a table."""
    table = Table(title="Summary", title_justify="left", show_header=False)
    table.add_column(style="bold")
    table.add_column()
    for name, metrics in figures["training"]["models"].items():
        table.add_row(f"nDCG@10 {name}", f"{metrics['ndcg_at_10']:.4f}")
    table.add_row(
        "pages served",
        f"{figures['pages']}  ({', '.join(f'{n} {level}' for level, n in figures['fallback_levels'].items())})",
    )
    table.add_row(
        "page latency", f"p50 {figures['latency_ms']['p50']} ms, p99 {figures['latency_ms']['p99']} ms, over HTTP"
    )
    table.add_row(
        "controls on these pages",
        ", ".join(f"{n} {status}" for status, n in figures["controls"].items()),
    )
    for status, ids in figures["controls_relaxed"].items():
        table.add_row(f"  {status}", ", ".join(f"{n} {control_id}" for control_id, n in ids.items()))
    table.add_row("undeclared violations", str(figures["controls_broken_undeclared"]))
    for heading, key in (("without guidance", "shares_without_guidance"), ("with guidance", "shares_with_guidance")):
        table.add_row(f"page {heading}", ", ".join(f"{label} {share:.0%}" for label, share in figures[key].items()))
    table.add_row("seconds", ", ".join(f"{step} {duration}" for step, duration in figures["seconds"].items()))
    console.print(table)


def _reason(code: str, titles: Mapping[str, str]) -> str:
    """Return a reason code as text."""
    name, _, item_id = code.partition(":")
    return f"similar to {titles.get(item_id, item_id)}" if item_id else name.replace("_", " ")


def _title(item: dict[str, Any]) -> str:
    titles = item["title"]
    return " · ".join(titles[language] for language in ("zh", "en") if language in titles)
