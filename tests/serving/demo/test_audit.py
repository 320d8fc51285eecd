"""The auditor finds what a page breaks and its receipt does not say."""

from __future__ import annotations

import pytest

from recsys.domain.item import Item
from serving.demo.audit import Auditor
from tests.serving.conftest import item

POLICY = "outlet: cn\ncontrols: [{id: off, action: block, where: {item: item-3}}]"


@pytest.mark.parametrize(
    ("shown", "said", "undeclared"),
    [(["item-1", "item-2"], "met", []), (["item-1", "item-3"], "met", ["off"]), (["item-3"], "relaxed", [])],
)
def test_a_blocked_item_must_be_declared(shown: list[str], said: str, undeclared: list[str]) -> None:
    auditor = Auditor([Item.model_validate(item(n)) for n in range(9)], [POLICY])
    page = {
        "request_id": "r",
        "items": [{"item": {"id": name}} for name in shown],
        "receipt": {"controls": [{"id": "off", "status": said}]},
    }
    assert auditor.undeclared(page, "v1", "tv", []) == undeclared
