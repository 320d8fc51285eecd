"""Hyper-parameters: frozen, checked, read from TOML files of which one may stand on another (`base =`)."""

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
"""The files that come with the package."""


class ConfigError(SettingsError):
    """A training configuration that cannot be used."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Split(_Section):
    """Shares of the log's actions, in time order: the oldest only feed retrieval, the newest only the evaluation."""

    ranker: float = Field(0.3, gt=0, lt=0.8, description="before the test: the ranker's examples")
    test: float = Field(0.15, gt=0, lt=0.8, description="the newest")


class Als(_Section):
    """Implicit ALS (Hu, Koren & Volinsky 2008)."""

    factors: int = Field(48, ge=1, le=1024)
    iterations: int = Field(15, ge=1)
    regularization: float = Field(2.0, gt=0)
    alpha: float = Field(1.0, gt=0, description="confidence of an action is 1 + alpha * its weight")


class Examples(_Section):
    """How the log becomes rows for the ranker."""

    session_actions: int = Field(8, ge=1, description="a new moment after so many actions of one viewer ...")
    session_gap_s: float = Field(1800.0, gt=0, description="... or after so long without one")
    negatives: int = Field(
        30, ge=1, description="untouched candidates kept per moment; their weight makes up for the rest"
    )
    max_moments: int = Field(4000, ge=1, description="more than these are sampled down evenly")


class Network(_Section):
    """The ranker and its training."""

    hidden: int = Field(48, ge=1)
    excluded_features: tuple[str, ...] = Field(
        (), description="features that the ranker is not to hear: those of which the data say nothing true"
    )
    epochs: int = Field(30, ge=1)
    patience: int = Field(4, ge=1, description="epochs without a better held-out loss before it stops")
    batch: int = Field(2048, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(1e-2, ge=0)
    stop: float = Field(0.15, gt=0, lt=0.5, description="share of the moments held out for early stopping")
    calibrate: float = Field(
        0.15, gt=0, lt=0.5, description="share of the moments, the newest, held out for calibration"
    )

    @field_validator("excluded_features")
    @classmethod
    def _check_excluded(cls, features: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := set(features).difference(FEATURES):
            raise ValueError(f"no feature {', '.join(sorted(unknown))}")
        return features


class Evaluation(_Section):
    """What is measured after the split."""

    ndcg_at: int = Field(10, ge=1)
    recall_at: int = Field(50, ge=1)
    rounds: int = Field(2000, ge=1, description="bootstrap rounds")
    calibration_moments: int = Field(500, ge=1, description="moments after the split on which calibration is measured")


class Config(_Section):
    """One training run."""

    seed: int = 7
    refit: bool = Field(True, description="ship models fitted on the whole log, after the evaluation")
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
        """An action that the file leaves out keeps its default weight."""
        return {**DEFAULT_WEIGHTS, **weights} if isinstance(weights, Mapping) else weights

    @field_validator("action_weights")
    @classmethod
    def _sound(cls, weights: dict[str, float]) -> dict[str, float]:
        if faults := weight_faults(weights):
            raise ValueError("; ".join(faults))
        return weights


def read_config(path: Path | str) -> Config:
    """The configuration in a TOML file and those below it; a plain name means one of the package's own.

    Raises ConfigError naming the file and the field: missing, not TOML, standing on itself, unknown field, bad number.
    """
    file = _find(str(path), CONFIGS)
    try:
        return Config.model_validate(_load_layers(file, ()))
    except ValidationError as error:
        findings = [Finding(".".join(map(str, e["loc"])), schema_fault(e)) for e in error.errors()]
        raise ConfigError(f"training configuration {file}", findings) from None


def _find(name: str, folder: Path) -> Path:
    """A path as given, else beside the file that names it, else among the package's own; `.toml` may be left out."""
    spoken = name if name.endswith(".toml") else f"{name}.toml"
    for file in (Path(spoken), folder / spoken, CONFIGS / spoken):
        if file.is_file():
            return file.resolve()
    own = ", ".join(sorted(file.stem for file in CONFIGS.glob("*.toml")))
    raise ConfigError(f"there is no training configuration {name!r}; there are {own}, and any TOML file by its path")


def _load_layers(file: Path, above: tuple[Path, ...]) -> dict[str, object]:
    """The fields of a file laid over those of its base."""
    if file in above:
        raise ConfigError(f"training configuration {file} stands on itself")
    try:
        fields = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"training configuration {file} is not TOML: {error}") from None
    base = fields.pop("base", None)
    if base is None:
        return fields
    if not isinstance(base, str):
        raise ConfigError(f"training configuration {file}", [Finding("base", "must name one other file")])
    return _merge(_load_layers(_find(base, file.parent), (*above, file)), fields)


def _merge(below: Mapping[str, object], above: Mapping[str, object]) -> dict[str, object]:
    """Tables are merged field by field; everything else is replaced."""
    merged = dict(below)
    for name, value in above.items():
        under = merged.get(name)
        merged[name] = _merge(under, value) if isinstance(under, dict) and isinstance(value, dict) else value
    return merged
