"""The items of four made-up outlets (`desk.yaml`), with dates relative to the first start of the demo."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.resources import files
from typing import Any

import yaml

from recsys.domain.item import Item

AXES = ("public_value", "locality", "originality")
FORMATS = {"v": "landscape", "p": "portrait", "a": "audio", "t": "text", "i": "image"}
HOUR = 3600.0


def newsroom_items(anchor: float) -> list[Item]:
    """Return about eighty items; `anchor` is the unix time that `at_h` and `until_h` are relative to."""
    return [_item(number, entry, anchor) for number, entry in enumerate(_newsroom()["items"], start=1)]


def newsroom_names() -> dict[str, dict[str, str]]:
    """Return the names of the outlets, by outlet code and language."""
    names: dict[str, dict[str, str]] = _newsroom()["outlets"]
    return names


def _newsroom() -> dict[str, Any]:
    newsroom: dict[str, Any] = yaml.safe_load(files("serving.demo").joinpath("desk.yaml").read_text("utf-8"))
    return newsroom


def _item(number: int, entry: dict[str, Any], anchor: float) -> Item:
    def moment(hours: float) -> datetime:
        return datetime.fromtimestamp(anchor + hours * HOUR, UTC)

    window: dict[str, object] = {}
    if "until_h" in entry:
        window["until"] = moment(entry["until_h"])
    if "only" in entry:
        window["regions"] = entry["only"]
    return Item.model_validate(
        {
            "id": f"desk-{number:03d}",
            "kind": entry.get("kind", "video"),
            "title": {"zh": entry["zh"], "en": entry["en"]},
            "outlet": entry["outlet"],
            "labels": entry["labels"],
            "topic": entry["labels"][-1] if entry["labels"][-1] != "local" else entry["labels"][-2],
            "series": entry.get("series", ""),
            "axes": dict(zip(AXES, entry["axes"], strict=True)),
            "region": entry.get("region"),
            "rights": [window] if window else [],
            "formats": [FORMATS[letter] for letter in entry["f"]],
            "duration_s": entry["min"] * 60,
            "published_at": moment(-entry["at_h"]),
            "age_rating": entry.get("age", 0),
            "status": entry.get("status", "published"),
        }
    )
