"""Hyperparameters of a training run: read from TOML files, each of which may extend another (`base =`)."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from features.columns import FEATURES
from features.user_files import BOM, utf8_fault
from recsys.domain.errors import Finding, SettingsError, schema_fault
from recsys.utility import DEFAULT_WEIGHTS, weight_faults

CONFIGS = Path(__file__).parent / "configs"
"""Directory of the configurations that the package ships."""


ACCEPTED = "a training configuration is a TOML file in UTF-8 with tables such as [network]"


class ConfigError(SettingsError):
    """A training configuration that cannot be used."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Split(_Section):
    """The split of the log's actions by time: the oldest train only retrieval, the newest serve only the evaluation."""

    ranker: float = Field(0.3, gt=0, lt=0.8, description="share of the ranker's examples, just before the test period")
    test: float = Field(0.15, gt=0, lt=0.8, description="share of the newest actions, for the evaluation")


class Als(_Section):
    """The parameters of implicit ALS (Hu, Koren & Volinsky 2008)."""

    factors: int = Field(48, ge=1, le=1024)
    iterations: int = Field(15, ge=1)
    regularization: float = Field(2.0, gt=0)
    alpha: float = Field(1.0, gt=0, description="confidence of an action is 1 + alpha * its weight")


class Examples(_Section):
    """The sampling of the ranker's training examples from the log."""

    session_actions: int = Field(8, ge=1, description="actions of a viewer after which a new moment starts")
    session_gap_s: float = Field(1800.0, gt=0, description="seconds without an action after which a new moment starts")
    negatives: int = Field(30, ge=1, description="negatives sampled per moment; their weight stands for all negatives")
    max_moments: int = Field(4000, ge=1, description="maximum number of moments; a larger log is sampled uniformly")


class Network(_Section):
    """The ranker's network and its training."""

    hidden: int = Field(48, ge=1)
    excluded_features: tuple[str, ...] = Field(
        (), description="features excluded from the ranker, because the training data cannot inform them"
    )
    epochs: int = Field(30, ge=1)
    patience: int = Field(4, ge=1, description="epochs without a lower held-out loss before training stops")
    batch: int = Field(2048, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(1e-2, ge=0)
    stop: float = Field(0.15, gt=0, lt=0.5, description="share of the moments held out for early stopping")
    calibrate: float = Field(0.15, gt=0, lt=0.5, description="share of the newest moments held out for calibration")

    @field_validator("excluded_features")
    @classmethod
    def _check_excluded(cls, features: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := set(features).difference(FEATURES):
            raise ValueError(f"unknown feature {', '.join(sorted(unknown))}")
        return features


class Evaluation(_Section):
    """The measurements on the test period."""

    ndcg_at: int = Field(10, ge=1)
    recall_at: int = Field(50, ge=1)
    rounds: int = Field(2000, ge=1, description="number of bootstrap resamples")
    calibration_moments: int = Field(
        500, ge=1, description="moments of the test period on which calibration is measured"
    )


class Config(_Section):
    """The configuration of a training run."""

    seed: int = 7
    refit: bool = Field(True, description="after the evaluation, refit the shipped models on the whole log")
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
        """Add the default weight of each action that the file omits."""
        return {**DEFAULT_WEIGHTS, **weights} if isinstance(weights, Mapping) else weights

    @field_validator("action_weights")
    @classmethod
    def _check_weights(cls, weights: dict[str, float]) -> dict[str, float]:
        if faults := weight_faults(weights):
            raise ValueError("; ".join(faults))
        return weights


def read_config(path: Path | str) -> Config:
    """Return the configuration of a TOML file and of its bases; a plain name may name a configuration of the package.

    Raises ConfigError with the file and the field if a file is missing, is not TOML or extends itself, or if a field is
    unknown or invalid.
    """
    file = _find(str(path), CONFIGS)
    try:
        return Config.model_validate(_load_layers(file, ()))
    except ValidationError as error:
        findings = [Finding(".".join(map(str, e["loc"])), schema_fault(e)) for e in error.errors()]
        raise ConfigError(f"training configuration {file}", findings) from None


def _find(name: str, folder: Path) -> Path:
    """Return the file: the path itself, else in `folder`, else in the package; the suffix `.toml` is optional."""
    file_name = name if name.endswith(".toml") else f"{name}.toml"
    for file in (Path(file_name), folder / file_name, CONFIGS / file_name):
        if file.is_file():
            return file.resolve()
    shipped = ", ".join(sorted(file.stem for file in CONFIGS.glob("*.toml")))
    raise ConfigError(f"no training configuration {name!r}; use one of {shipped}, or the path of a TOML file")


def _load_layers(file: Path, derived: tuple[Path, ...]) -> dict[str, object]:
    """Return the fields of a file, merged over those of its bases.

    derived  the files that extend this file, outermost first
    """
    if file in derived:
        raise ConfigError(f"training configuration {file} extends itself through `base`")
    try:
        raw = file.read_bytes()
        if fault := utf8_fault(raw):
            raise ConfigError(f"training configuration {file}: {fault}; {ACCEPTED}")
        fields = tomllib.loads(raw.removeprefix(BOM).decode())
    except OSError as error:
        raise ConfigError(f"training configuration {file} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"training configuration {file} is not TOML: {error}; {ACCEPTED}") from None
    base = fields.pop("base", None)
    if base is None:
        return fields
    if not isinstance(base, str):
        raise ConfigError(
            f"training configuration {file}", [Finding("base", "must be the name or path of a configuration")]
        )
    return _merge(_load_layers(_find(base, file.parent), (*derived, file)), fields)


def _merge(base: Mapping[str, object], override: Mapping[str, object]) -> dict[str, object]:
    """Return `base` with the values of `override`: tables are merged field by field, other values are replaced."""
    merged = dict(base)
    for name, value in override.items():
        base_value = merged.get(name)
        merged[name] = _merge(base_value, value) if isinstance(base_value, dict) and isinstance(value, dict) else value
    return merged
