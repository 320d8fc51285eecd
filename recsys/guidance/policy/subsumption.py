"""Compare conditions by their definitions alone, so that the result holds for every catalog.

The comparison is sound but not complete: if the definitions do not prove that a condition is wider, the answer is no.
"""

from __future__ import annotations

from recsys.guidance.policy.conditions import Condition, Range

_TREES = {"label": "/", "outlet": ".", "region": "."}
_NAMES = ("kind", "language", "series", "provider", "item")


def subsumes(wide: Condition, narrow: Condition) -> bool:
    """Return whether `wide` provably holds for every item for which `narrow` holds.

    >>> news, city = Condition(label=("news",)), Condition(label=("news/city",))
    >>> subsumes(news, city), subsumes(city, news), subsumes(Condition(any=(city, Condition(kind=("live",)))), city)
    (True, False, True)
    """
    return wide == narrow or all(_is_implied(test, narrow) for test in _tests(wide))


def _tests(condition: Condition) -> list[Condition]:
    """Return the tests of a condition, each as a condition of its own."""
    fields = [name for name in type(condition).model_fields if getattr(condition, name)]
    defaults = {name: field.default for name, field in type(condition).model_fields.items()}
    return [condition.model_copy(update={**defaults, name: getattr(condition, name)}) for name in fields]


def _is_implied(test: Condition, narrow: Condition) -> bool:
    """Return whether a test holds wherever `narrow` holds."""
    return (
        _implies_directly(test, narrow)
        or any(subsumes(test, inner) for inner in narrow.all_of)
        or bool(narrow.any_of and all(subsumes(test, inner) for inner in narrow.any_of))
        or any(subsumes(inner, narrow) for inner in test.any_of)
        or bool(test.all_of and all(subsumes(inner, narrow) for inner in test.all_of))
        or bool(test.none_of and narrow.none_of and subsumes(narrow.none_of, test.none_of))
    )


def _implies_directly(test: Condition, narrow: Condition) -> bool:
    """Return whether `narrow` has the same test with equal or narrower values."""
    for field, separator in _TREES.items():
        if roots := getattr(test, field):
            names = getattr(narrow, field)
            return bool(names) and all(
                any(name == root or name.startswith(root + separator) for root in roots) for name in names
            )
    for field in _NAMES:
        if allowed := getattr(test, field):
            return bool(getattr(narrow, field)) and set(getattr(narrow, field)) <= set(allowed)
    if test.axis:
        return all(axis in narrow.axis and narrow.axis[axis] >= minimum for axis, minimum in test.axis.items())
    if test.age_rating:
        return narrow.age_rating is not None and _is_within(narrow.age_rating, test.age_rating)
    return test.locality is not None and test.locality == narrow.locality


def _is_within(inner: Range, outer: Range) -> bool:
    below = outer.at_least is None or (inner.at_least is not None and inner.at_least >= outer.at_least)
    above = outer.at_most is None or (inner.at_most is not None and inner.at_most <= outer.at_most)
    return below and above
