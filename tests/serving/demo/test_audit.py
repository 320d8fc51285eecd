"""The auditor reports violated controls that the receipt does not declare."""

from __future__ import annotations

import pytest

from recsys.domain.item import Item
from serving.demo.audit import Auditor
from tests.serving.conftest import item

POLICY = "outlet: cn\ncontrols: [{id: off, action: block, where: {item: item-3}}]"


@pytest.mark.parametrize(
    ("shown", "status", "undeclared"),
    [(["item-1", "item-2"], "met", []), (["item-1", "item-3"], "met", ["off"]), (["item-3"], "relaxed", [])],
)
def test_a_blocked_item_must_be_declared(shown: list[str], status: str, undeclared: list[str]) -> None:
    auditor = Auditor([Item.model_validate(item(n)) for n in range(9)], [POLICY])
    page = {
        "request_id": "r",
        "items": [{"item": {"id": name}} for name in shown],
        "receipt": {"controls": [{"id": "off", "status": status}]},
    }
    assert auditor.undeclared(page, "v1", "tv", []) == undeclared
