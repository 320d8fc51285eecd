"""Hyperparameters, validated and immutable. They are read from TOML files; a file may extend another (`base =`)."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from features.columns import FEATURES
from recsys.domain.errors import Finding, SettingsError, schema_fault
from recsys.utility import DEFAULT_WEIGHTS, weight_faults

CONFIGS = Path(__file__).parent / "configs"
"""Directory of the configurations that come with the package."""


class ConfigError(SettingsError):
    """The error of a training configuration that cannot be used."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Split(_Section):
    """The temporal split of the log's actions: retrieval is fitted on the oldest share, the newest is the test."""

    ranker: float = Field(0.3, gt=0, lt=0.8, description="actions before the test, used as the ranker's examples")
    test: float = Field(0.15, gt=0, lt=0.8, description="the newest actions, used for the evaluation")


class Als(_Section):
    """The parameters of implicit ALS (Hu, Koren & Volinsky 2008)."""

    factors: int = Field(48, ge=1, le=1024)
    iterations: int = Field(15, ge=1)
    regularization: float = Field(2.0, gt=0)
    alpha: float = Field(1.0, gt=0, description="confidence of an action is 1 + alpha * its weight")


class Examples(_Section):
    """The parameters of the ranker's training rows."""

    session_actions: int = Field(8, ge=1, description="a decision point ends after this many actions of its viewer")
    session_gap_s: float = Field(1800.0, gt=0, description="or after this many seconds without an action")
    negatives: int = Field(
        30, ge=1, description="candidates without an action kept per decision point, weighted to represent the rest"
    )
    max_moments: int = Field(4000, ge=1, description="maximum number of decision points, sampled evenly")


class Network(_Section):
    """The ranker and its training."""

    hidden: int = Field(48, ge=1)
    excluded_features: tuple[str, ...] = Field(
        (), description="features excluded from the ranker, because the data misrepresents them"
    )
    epochs: int = Field(30, ge=1)
    patience: int = Field(4, ge=1, description="epochs without a better held-out loss before training stops")
    batch: int = Field(2048, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(1e-2, ge=0)
    stop: float = Field(0.15, gt=0, lt=0.5, description="share of the decision points held out for early stopping")
    calibrate: float = Field(
        0.15, gt=0, lt=0.5, description="share of the decision points, the newest, held out for calibration"
    )

    @field_validator("excluded_features")
    @classmethod
    def _check_excluded(cls, features: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := set(features).difference(FEATURES):
            raise ValueError(f"no feature {', '.join(sorted(unknown))}")
        return features


class Evaluation(_Section):
    """The parameters of the evaluation after the split."""

    ndcg_at: int = Field(10, ge=1)
    recall_at: int = Field(50, ge=1)
    rounds: int = Field(2000, ge=1, description="bootstrap rounds")
    calibration_moments: int = Field(500, ge=1, description="decision points for calibration metrics")


class Config(_Section):
    """The configuration of a training run."""

    seed: int = 7
    refit: bool = Field(True, description="register models that are fitted on the whole log after the evaluation")
    split: Split = Split()
    als: Als = Als()
    examples: Examples = Examples()
    network: Network = Network()
    evaluation: Evaluation = Evaluation()
    action_weights: dict[str, Annotated[float, Field(strict=True)]] = Field(
        dict(DEFAULT_WEIGHTS),
        description="weight of each action in the utility of an item, in play equivalents: play = 1",
    )

    @field_validator("action_weights", mode="before")
    @classmethod
    def _with_defaults(cls, weights: object) -> object:
        """Add the default weights of actions that the file omits."""
        return {**DEFAULT_WEIGHTS, **weights} if isinstance(weights, Mapping) else weights

    @field_validator("action_weights")
    @classmethod
    def _sound(cls, weights: dict[str, float]) -> dict[str, float]:
        if faults := weight_faults(weights):
            raise ValueError("; ".join(faults))
        return weights


def read_config(path: Path | str) -> Config:
    """Return the configuration in a TOML file and its bases; a plain name refers to a configuration of the package.

    Raises ConfigError, which names the file and the field, for a file that is missing, is not TOML or extends itself,
    and for an unknown field or an invalid value.
    """
    file = _find(str(path), CONFIGS)
    try:
        return Config.model_validate(_load_layers(file, ()))
    except ValidationError as error:
        findings = [Finding(".".join(map(str, e["loc"])), schema_fault(e)) for e in error.errors()]
        raise ConfigError(f"training configuration {file}", findings) from None


def _find(name: str, folder: Path) -> Path:
    """Find a file by its path, next to the file that names it, or in the package; `.toml` may be omitted."""
    file_name = name if name.endswith(".toml") else f"{name}.toml"
    for file in (Path(file_name), folder / file_name, CONFIGS / file_name):
        if file.is_file():
            return file.resolve()
    own = ", ".join(sorted(file.stem for file in CONFIGS.glob("*.toml")))
    raise ConfigError(f"there is no training configuration {name!r}; use {own}, or the path of a TOML file")


def _load_layers(file: Path, above: tuple[Path, ...]) -> dict[str, object]:
    """Return the fields of a file, merged over those of its base."""
    if file in above:
        raise ConfigError(f"training configuration {file} extends itself")
    try:
        fields = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"training configuration {file} is not TOML: {error}") from None
    base = fields.pop("base", None)
    if base is None:
        return fields
    if not isinstance(base, str):
        raise ConfigError(f"training configuration {file}", [Finding("base", "must be the name of another file")])
    return _merge(_load_layers(_find(base, file.parent), (*above, file)), fields)


def _merge(below: Mapping[str, object], above: Mapping[str, object]) -> dict[str, object]:
    """Merge tables field by field, and replace all other values."""
    merged = dict(below)
    for name, value in above.items():
        under = merged.get(name)
        merged[name] = _merge(under, value) if isinstance(under, dict) and isinstance(value, dict) else value
    return merged
