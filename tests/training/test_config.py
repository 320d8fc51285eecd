"""Training configurations inherit from one another, and errors name the file and the field."""

from __future__ import annotations

from pathlib import Path

import pytest

from recsys.utility import DEFAULT_WEIGHTS
from training.config import CONFIGS, Config, ConfigError, read_config


def write(directory: Path, name: str, text: str) -> Path:
    path = directory / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_only_sets_what_differs_from_its_base(tmp_path: Path) -> None:
    write(tmp_path, "low.toml", "seed = 3\n[als]\nfactors = 8\nalpha = 2.0\n")
    write(tmp_path, "middle.toml", 'base = "low"\n[als]\nfactors = 16\n')
    top = write(tmp_path, "top.toml", 'base = "middle.toml"\nrefit = false\n')
    config = read_config(top)
    assert (config.seed, config.refit, config.als.factors, config.als.alpha) == (3, False, 16, 2.0)
    assert config.network == Config().network


def test_an_action_without_a_configured_weight_keeps_its_default(tmp_path: Path) -> None:
    write(tmp_path, "low.toml", "[action_weights]\nlike = 5\n")
    top = write(tmp_path, "top.toml", 'base = "low"\n[action_weights]\ndislike = -8.0\n')
    assert read_config(top).action_weights == {**DEFAULT_WEIGHTS, "like": 5.0, "dislike": -8.0}
    assert read_config(write(tmp_path, "none.toml", "")).action_weights == DEFAULT_WEIGHTS


@pytest.mark.parametrize("name", sorted(path.stem for path in CONFIGS.glob("*.toml")))
def test_the_bundled_configurations_are_valid(name: str) -> None:
    read_config(name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[als]\nfactor = 8\n", r"als\.factor: unknown field"),
        ("[als]\nfactors = 0\n", r"als\.factors: must be at least 1"),
        ('[network]\nexcluded_features = ["trend", "trent"]\n', r"network\.excluded_features: .*no feature trent"),
        ("[split]\ntest = 1.0\n", r"split\.test: .*less than"),
        ("seed = [", "not TOML"),
        ('base = "nowhere"\n', "no training configuration 'nowhere'"),
        ("base = 7\n", "base: must name one other file"),
        ('base = "this"\n', "extends itself"),
        ("[action_weights]\nlike = nan\n", r"action_weights: the weight of like is nan"),
        ("[action_weights]\nlike = true\n", r"action_weights\.like: "),
        ("[action_weights]\nshare = 1.0\n", r"action_weights: a weight for share, which is not an action"),
        ("[action_weights]\nplay = 2.0\n", r"action_weights: .*divide all weights by 2"),
        ("action_weights = 3\n", r"action_weights: "),
    ],
)
def test_an_invalid_configuration_is_refused_with_the_field(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, "this.toml", text)
    with pytest.raises(ConfigError, match=message):
        read_config(path)


def test_cyclic_inheritance_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "first.toml", 'base = "second"\n')
    with pytest.raises(ConfigError, match="extends itself"):
        read_config(write(tmp_path, "second.toml", 'base = "first"\n'))
