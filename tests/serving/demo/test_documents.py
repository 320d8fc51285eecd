"""Every policy in the documentation is valid and has no lint findings."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from recsys.domain.catalog import Catalog
from recsys.guidance.lint.lint import lint
from serving.demo.movielens import MovieLens
from serving.demo.policies import newsroom_items
from serving.demo.steps import policy_text
from serving.snapshot.profiles import read_policy

ROOT = Path(__file__).parents[3]
ANCHOR = 1_780_000_000.0
UTILITY = 0.03  # play equivalents, as on the pages of the demo
PAGES = ("docs/for_editors.md", "docs/exposure_targets.md", "README.md", "README.zh-CN.md")
BLOCKS = [(page, text) for page in PAGES for text in re.findall(r"```yaml\n(.*?)```", (ROOT / page).read_text(), re.S)]


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    """The items of the made-up outlets and some films: the same labels and outlets, loaded faster."""
    return Catalog.of(MovieLens.read(ANCHOR).items()[:400] + newsroom_items(ANCHOR))


@pytest.mark.parametrize(("page", "text"), BLOCKS, ids=[f"{page}-{n}" for n, (page, _) in enumerate(BLOCKS)])
def test_a_policy_in_the_documents_lints_clean(catalog: Catalog, page: str, text: str) -> None:
    policy = read_policy(text)
    parents = [read_policy(policy_text(outlet)) for outlet in ("cn", "cn.zj")]
    assert lint([*parents, policy], catalog, ANCHOR, UTILITY) == ()


def test_the_guide_for_editors_has_an_example_of_every_control() -> None:
    actions = {control.action for page, text in BLOCKS if "editors" in page for control in read_policy(text).controls}
    assert actions == {"quota", "cap", "spacing", "pin", "block", "boost", "exposure_target"}
