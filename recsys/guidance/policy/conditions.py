"""Conditions: small trees of tests that select the items of a control, compiled to a mask over the catalog."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from recsys.domain.catalog import Catalog
from recsys.domain.fields import Code, Id, Label, Name, Number
from recsys.domain.item import KINDS, Kind
from recsys.domain.regions import province
from recsys.domain.types import Bool
from recsys.guidance.policy.yaml_text import not_text
from recsys.messages import InvalidValue, message


def _as_tuple(value: object) -> object:
    if isinstance(value, bool | int | float):
        raise InvalidValue(not_text(value))
    return (value,) if isinstance(value, str) else value


OneOrMore = BeforeValidator(_as_tuple)
"""A validator that accepts one value (`label: news`) or a list (`label: [news, culture]`), which means any of these."""


LEVELS_MAX = 40
"""Maximum nesting of tests, lists and mappings: more than a policy needs, and low enough for recursive code."""


def _reject_deep_nesting(value: object) -> object:
    """Reject deep nesting before validation, because validation recurses once per level."""
    level_values, levels = [value], 0
    while level_values:
        if (levels := levels + 1) > LEVELS_MAX:
            raise InvalidValue(message("tests_nested_too_deep", maximum=LEVELS_MAX))
        parts = [part for part in level_values if isinstance(part, dict | list | tuple)]
        level_values = [child for part in parts for child in (part.values() if isinstance(part, dict) else part)]
    return value


class Range(BaseModel):
    """A range of numbers; both limits are inclusive."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    at_least: Number | None = None
    at_most: Number | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if self.at_least is None and self.at_most is None:
            raise InvalidValue(message("range_empty"))
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            raise InvalidValue(message("range_reversed"))
        return self


class Condition(BaseModel):
    """A condition on items. It holds for an item if all its tests hold.

    label, outlet, region   the item's label, outlet or region is one of the listed nodes or lies below one
    kind, language, series, provider, item   the item's value is one of the listed values
    axis        {name: x}: the editorial value on this axis is at least x
    age_rating  range of the age rating in years
    locality    `viewer`: the item is about a region in the viewer's province, that is, below the first two levels of
                the viewer's region (viewer in cn.zj.hz: cn.zj and all below it; viewer in cn: cn and all below it).
                An item without a region is local to no viewer.
    all, any, not   combinations of other conditions
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    label: Annotated[tuple[Label, ...], OneOrMore] = ()
    outlet: Annotated[tuple[Code, ...], OneOrMore] = ()
    region: Annotated[tuple[Code, ...], OneOrMore] = ()
    kind: Annotated[tuple[Kind, ...], OneOrMore] = ()
    language: Annotated[tuple[Name, ...], OneOrMore] = ()
    series: Annotated[tuple[Name, ...], OneOrMore] = ()
    provider: Annotated[tuple[Name, ...], OneOrMore] = ()
    item: Annotated[tuple[Id, ...], OneOrMore] = ()
    axis: dict[Name, Annotated[Number, Field(ge=0, le=1)]] = {}
    age_rating: Range | None = None
    locality: Literal["viewer"] | None = None
    all_of: tuple[Condition, ...] = Field((), alias="all")
    any_of: tuple[Condition, ...] = Field((), alias="any")
    none_of: Condition | None = Field(None, alias="not")

    @model_validator(mode="after")
    def _has_a_test(self) -> Condition:
        if not any(getattr(self, name) for name in type(self).model_fields):
            raise InvalidValue(message("condition_empty"))
        return self

    def parts(self) -> Iterator[Condition]:
        """Yield this condition and all nested conditions."""
        yield self
        for inner in (*self.all_of, *self.any_of, *((self.none_of,) if self.none_of else ())):
            yield from inner.parts()

    @property
    def about_viewer(self) -> bool:
        """Return whether the condition depends on the viewer's region."""
        return any(part.locality for part in self.parts())

    def key(self) -> str:
        """Return a text that is equal for equal conditions."""
        return self.model_dump_json(exclude_defaults=True)


Where = Annotated[Condition, BeforeValidator(_reject_deep_nesting)]
"""The condition of a control. Nesting deeper than LEVELS_MAX is reported at the control's field."""


def mask(condition: Condition, catalog: Catalog, region: str) -> Bool:
    """Return the [N] mask of the catalog items that meet the condition for viewers in `region`."""
    holds = np.ones(len(catalog), np.bool_)
    for test in _tests(condition, catalog, region):
        holds &= test
    return holds


def _tests(condition: Condition, catalog: Catalog, region: str) -> Iterator[Bool]:
    yield from _name_tests(condition, catalog)
    yield from _number_tests(condition, catalog)
    if condition.locality:
        yield catalog.region_subtree(province(region))
    if condition.all_of:
        yield np.logical_and.reduce([mask(inner, catalog, region) for inner in condition.all_of])
    if condition.any_of:
        yield _any([mask(inner, catalog, region) for inner in condition.any_of])
    if condition.none_of:
        yield ~mask(condition.none_of, catalog, region)


def _name_tests(condition: Condition, catalog: Catalog) -> Iterator[Bool]:
    """Yield an [N] mask for each field that lists names: subtrees of a vocabulary, or equal values."""
    if condition.label:
        yield _any([catalog.label_subtree(label) for label in condition.label])
    if condition.outlet:
        yield _any([catalog.outlet_subtree(outlet) for outlet in condition.outlet])
    if condition.region:
        yield _any([catalog.region_subtree(region) for region in condition.region])
    if condition.kind:
        yield np.isin(catalog.kind, [KINDS.index(kind) for kind in condition.kind])
    if condition.language:
        yield np.array([item.language in condition.language for item in catalog.items], np.bool_)
    if condition.series:
        yield np.isin(catalog.series, [catalog.series_names.code.get(name, -2) for name in condition.series])
    if condition.provider:
        yield np.isin(catalog.provider, [catalog.providers.code.get(name, -2) for name in condition.provider])
    if condition.item:
        yield np.isin(np.arange(len(catalog)), catalog.rows(condition.item))


def _number_tests(condition: Condition, catalog: Catalog) -> Iterator[Bool]:
    """Yield an [N] mask for each limit of an axis or of the age rating."""
    for axis, minimum in condition.axis.items():
        code = catalog.axes.code.get(axis)
        value = catalog.axis[:, code] if code is not None else np.zeros(len(catalog), np.float32)
        yield value >= np.float32(minimum)
    if condition.age_rating:
        if condition.age_rating.at_least is not None:
            yield catalog.age_rating >= condition.age_rating.at_least
        if condition.age_rating.at_most is not None:
            yield catalog.age_rating <= condition.age_rating.at_most


def _any(masks: list[Bool]) -> Bool:
    return np.asarray(np.logical_or.reduce(masks), np.bool_)
