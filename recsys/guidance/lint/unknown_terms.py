"""Words in a policy that mean nothing to the present catalogue, with the word that was probably meant."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches

from recsys.domain.catalog import Catalog
from recsys.domain.errors import Finding
from recsys.guidance.policy.conditions import Condition
from recsys.guidance.policy.controls import Pin
from recsys.guidance.policy.policy import Policy


def unknown_terms(policy: Policy, catalog: Catalog) -> Iterator[Finding]:
    """One finding for each label, axis, outlet, region, series, provider or item that the catalogue does not know."""
    for place, control in enumerate(policy.controls):
        if isinstance(control, Pin):
            if control.item not in catalog.row_of:
                yield Finding(f"controls[{place}].item", f"item {control.item!r} is not in the catalogue")
            continue
        where = getattr(control, "where", None)
        for part in where.parts() if isinstance(where, Condition) else ():
            for field, message in _unknown(part, catalog):
                yield Finding(f"controls[{place}].where.{field}", message)


def _unknown(part: Condition, catalog: Catalog) -> Iterator[tuple[str, str]]:
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
                yield field, f"no item has the {field} {word!r}{did_you_mean(word, known, separator)}"
    for item in part.item:
        if item not in catalog.row_of:
            yield "item", f"item {item!r} is not in the catalogue"


def did_you_mean(word: str, known: Iterable[str], separator: str) -> str:
    """ "; did you mean ...?" when a known word, or a node above one, is close."""
    nodes = set(known)
    if separator:
        nodes |= {separator.join(name.split(separator)[:depth]) for name in known for depth in range(1, 6)}
    close = get_close_matches(word, sorted(nodes), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
