"""Words in a policy that mean nothing to the present catalogue, with the word that was probably meant."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches

from recsys.domain.catalog import Catalog
from recsys.domain.errors import Finding
from recsys.guidance.policy.conditions import Condition
from recsys.guidance.policy.controls import Pin
from recsys.guidance.policy.policy import Policy
from recsys.messages import Message, message


def unknown_terms(policy: Policy, catalog: Catalog) -> Iterator[Finding]:
    """One finding for each label, axis, outlet, region, series, provider or item that the catalogue does not know."""
    for place, control in enumerate(policy.controls):
        if isinstance(control, Pin):
            if control.item not in catalog.row_of:
                yield Finding(f"controls[{place}].item", message("item_unknown", item=control.item))
            continue
        where = getattr(control, "where", None)
        for part in where.parts() if isinstance(where, Condition) else ():
            for field, said in _unknown(part, catalog):
                yield Finding(f"controls[{place}].where.{field}", said)


def _unknown(part: Condition, catalog: Catalog) -> Iterator[tuple[str, Message]]:
    trees: tuple[tuple[str, Sequence[str], Sequence[str], str], ...] = (
        ("label", part.label, catalog.labels.names, "/"),
        ("outlet", part.outlet, catalog.outlets.names, "."),
        ("region", part.region, catalog.regions.names, "."),
        ("series", part.series, catalog.series_names.names, ""),
        ("provider", part.provider, catalog.providers.names, ""),
        ("axis", tuple(part.axis), catalog.axes.names, ""),
    )
    for field, said, known, separator in trees:
        for word in said:
            if not any(name == word or (separator and name.startswith(word + separator)) for name in known):
                suggestion = did_you_mean(word, known, separator)
                yield field, message("term_unknown", field=field, word=word, suggestion=suggestion)
    for item in part.item:
        if item not in catalog.row_of:
            yield "item", message("item_unknown", item=item)


def did_you_mean(word: str, known: Iterable[str], separator: str) -> Message | None:
    """The suggestion of a known word, or of a node above one, that is close; None where none is."""
    nodes = set(known)
    if separator:
        nodes |= {separator.join(name.split(separator)[:depth]) for name in known for depth in range(1, 6)}
    close = get_close_matches(word, sorted(nodes), n=1)
    return message("did_you_mean", word=close[0]) if close else None
