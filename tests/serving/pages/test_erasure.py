"""A viewer idle for longer than `viewer_ttl_days` is treated as new, although the state is still in the store."""

from __future__ import annotations

import time
from typing import Any

from features.columns import FEATURES
from features.state.codec import encode_viewer, viewer_key
from recsys.domain.decay import DAY_S
from recsys.domain.viewer import Recent, ViewerState
from recsys.models.served_model import ServedModel


def test_expired_viewer_state_is_ignored(service: Any, bundle: Any) -> None:
    ttl_days = service.services.settings.viewer_ttl_days
    service.services.holders.set_model(ServedModel.load(bundle("m1", [f"item-{n}" for n in range(60)]), FEATURES))
    levels = {}
    for name, days in (("recent", ttl_days - 1), ("expired", ttl_days + 1)):
        at = time.time() - days * DAY_S
        liked = tuple(Recent(f"item-{n}", "like", at) for n in (1, 3, 5))
        service.services.online.put({viewer_key("v"): encode_viewer(ViewerState("v", liked, at=at))})
        page = service.page("v", region="cn.zj", slots=8)
        levels[name] = page["fallback_level"]
        assert page["degraded_parts"] == []
    assert levels["recent"] == "personal"
    assert levels["expired"] != "personal"
