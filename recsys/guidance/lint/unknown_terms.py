"""Find terms of a policy that do not occur in the current catalog, and suggest similar terms."""

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
    """Yield a finding for each label, axis, outlet, region, series, provider or item that is not in the catalog."""
    for index, control in enumerate(policy.controls):
        if isinstance(control, Pin):
            if control.item not in catalog.row_of:
                yield Finding(f"controls[{index}].item", message("item_unknown", item=control.item))
            continue
        condition = getattr(control, "where", None)
        for part in condition.parts() if isinstance(condition, Condition) else ():
            for field, text in _unknown(part, catalog):
                yield Finding(f"controls[{index}].where.{field}", text)


def _unknown(part: Condition, catalog: Catalog) -> Iterator[tuple[str, Message]]:
    trees: tuple[tuple[str, Sequence[str], Sequence[str], str], ...] = (
        ("label", part.label, catalog.labels.names, "/"),
        ("outlet", part.outlet, catalog.outlets.names, "."),
        ("region", part.region, catalog.regions.names, "."),
        ("series", part.series, catalog.series_names.names, ""),
        ("provider", part.provider, catalog.providers.names, ""),
        ("axis", tuple(part.axis), catalog.axes.names, ""),
    )
    for field, terms, names, separator in trees:
        for term in terms:
            if not any(name == term or (separator and name.startswith(term + separator)) for name in names):
                suggestion = did_you_mean(term, names, separator)
                yield field, message("term_unknown", field=field, word=term, suggestion=suggestion)
    for item in part.item:
        if item not in catalog.row_of:
            yield "item", message("item_unknown", item=item)


def did_you_mean(term: str, names: Iterable[str], separator: str) -> Message | None:
    """Return a suggestion of a similar term or of a node above one; None if no term is similar."""
    nodes = set(names)
    if separator:
        nodes |= {separator.join(name.split(separator)[:depth]) for name in names for depth in range(1, 6)}
    close = get_close_matches(term, sorted(nodes), n=1)
    return message("did_you_mean", word=close[0]) if close else None
