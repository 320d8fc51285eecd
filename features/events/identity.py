"""Under which id an event is known: a CloudEvent is told from others by its source and its id together.

Source: CloudEvents 1.0, https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md#id . In memory, in the
stream and in the event log an event has an id alone. So the source of whoever sent it is put before it, once.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b

from features.events.schema import SOURCE

MAPPED = {"segment": "/segment", "activitystreams": "/activitystreams"}
"""Sources of what came in other people's forms, which name none: their ids are unique by themselves."""

ID_MAX = 200
_MARK = "#"
_OURS = frozenset({SOURCE, *MAPPED.values()})
_WHOLE_MAX = 100


def event_key(source: str, id: str) -> str:
    """`SOURCE#ID`, at most ID_MAX long; a hash stands for what is too long or could be misread. An event that is ours
    already, as the stream, an export and the event log have it, keeps its id.

    Mapped ids stand by themselves, so a source that spells the beginning of one up to its `#` shares ids with it: an
    ActivityStreams id `https://m.social/users/x#likes/5` is the same as `likes/5` of source `https://m.social/users/x`.

    >>> event_key("/apps/tv", "e1"), event_key("/mainstay", "/apps/tv#e1"), event_key("/segment", "m1")
    ('/apps/tv#e1', '/apps/tv#e1', 'm1')
    """
    before = _split_legacy(source)
    if not before or len(before) + len(id) <= ID_MAX:
        return before + id
    return before + _hash(id)


@lru_cache(maxsize=4096)
def _split_legacy(source: str) -> str:
    if source in _OURS:
        return ""
    plain = len(source) <= _WHOLE_MAX and source.isprintable() and " " not in source and _MARK not in source
    return (source if plain else _hash(source)) + _MARK


def _hash(text: str) -> str:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
