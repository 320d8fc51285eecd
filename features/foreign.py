"""Events in other people's forms: pure functions from a parsed JSON value to a CloudEvent of ours.

They raise EventError for what they do not understand. What they give is checked by `features.events.accept` like any
other: a mapper names things, it vouches for nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from features.activitystreams import from_activity
from features.segment import from_segment

FORMS: Mapping[str, Callable[[object], dict[str, Any]]] = {"segment": from_segment, "activitystreams": from_activity}
"""By the name that `POST /v1/events?format=` takes."""
