"""The check before publication: policies whose pages exceed their budget of counted work are refused."""

from __future__ import annotations

from itertools import count
from random import Random
from typing import Any

import pytest

from recsys.domain.catalog import Catalog
from recsys.guidance.lint import dry_run as dry_run_module
from recsys.guidance.lint.lint import lint
from recsys.guidance.lint.page_work import page_work_findings
from recsys.guidance.policy.policy import Policy, parse_policy

NOW = 1_772_424_000.0
LABELS = ("public-service", "commercial", "plain", "news", "culture", "sport")


def competing(controls: int) -> Policy:
    """Return a policy of minimums that no page can meet together."""
    where = [f"{{label: {LABELS[n % 6]}, provider: p{n % 5}}}" for n in range(controls)]
    lines = [f"  - {{id: m{n}, action: quota, where: {where[n]}, at_least: {1 + n % 4}}}\n" for n in range(controls)]
    return parse_policy(f"outlet: cn\ncontrols:\n{''.join(lines)}")


def ordinary(seed: int) -> Policy:
    """Return a policy of four random controls, which may contradict each other."""
    random, lines = Random(seed), []
    for n in range(4):
        attribute, level = random.choice(["topic", "provider", "region"]), random.choice(["editorial", "preferred"])
        label, minimum = random.choice(LABELS), random.choice([0.2, 0.5, 4])
        lines.append(
            random.choice(
                [
                    f"action: quota, where: {{label: {label}}}, at_least: {minimum}",
                    f"action: cap, attribute: {attribute}, at_most: {random.choice([1, 3, 0.2])}",
                    f"action: spacing, attribute: {attribute}, at_most: 1, within: {random.choice([2, 3])}",
                ]
            )
        )
        lines[-1] = f"  - {{id: c{n}, enforcement: {level}, {lines[-1]}}}\n"
    return parse_policy(f"outlet: cn\ncontrols:\n{''.join(lines)}")


def test_a_policy_of_ordinary_controls_can_be_published(shop: Catalog, scaled: Any) -> None:
    for seed in range(scaled(200)):
        assert not list(page_work_findings([ordinary(seed)], shop, NOW)), seed


def test_a_policy_that_takes_too_much_work_is_refused(shop: Catalog) -> None:
    (finding,) = page_work_findings([competing(240)], shop, NOW)
    assert (finding.where, finding.code, finding.level) == ("controls", "policy_exceeds_page_budget", "error")
    assert "240 controls are in force on tv" in finding.message


def test_controls_of_parents_count(shop: Catalog) -> None:
    child = parse_policy("outlet: cn.zj\ncontrols: [{id: sport, action: quota, where: {label: sport}, at_least: 2}]")
    assert not list(page_work_findings([child], shop, NOW))
    assert len(list(page_work_findings([competing(240), child], shop, NOW))) == 1


def test_a_smaller_limit_refuses_more(shop: Catalog) -> None:
    """The verdict is monotone in the limit: it is counted work, not time."""
    policy = competing(12)
    refused = [bool(list(page_work_findings([policy], shop, NOW, limit))) for limit in (1e3, 1e4, 1e5, 1e7)]
    assert refused == sorted(refused, reverse=True)
    assert (refused[0], refused[-1]) == (True, False)


def test_lint_stops_when_nobody_waits(shop: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dry_run_module, "solve", None)  # no sample page is solved
    codes = [finding.code for finding in lint([competing(60)], shop, NOW, cancelled=lambda: True)]
    assert codes.count("lint_truncated") == 1


def test_lint_checks_its_limit_for_every_control(shop: Catalog) -> None:
    """Between two checks lint handles one control or one page, so it stops soon after its limit."""
    checks = count(1)

    def cancelled() -> bool:
        return next(checks) > 10

    reported = lint([competing(60)], shop, NOW, cancelled=cancelled)
    assert next(checks) <= 13
    assert sum(finding.code == "lint_truncated" for finding in reported) == 1
    assert not any(finding.code == "lint_truncated" for finding in lint([ordinary(1)], shop, NOW))
