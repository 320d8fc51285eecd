"""The multi-action ranker: one small network, a calibrated probability for each action."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from recsys.domain.errors import BundleError
from recsys.domain.types import ACTIONS, F32
from recsys.models.probabilities import coherent

WITHIN = 3.0
"""Standard deviations from the training mean beyond which a feature says nothing more."""

EXCLUDED_VALUE = 1e9
"""The deviation given to a feature that never varied in training: whatever it is when serving, it says nothing."""


class Ranker(nn.Module):
    """A shared two-layer body under one head per action, on standardised features.

    `mean`, `std` [F] standardise the input; `scale`, `shift` [A] calibrate each logit (Platt 1999). All four are part
    of the weights, so nothing but the tensors has to travel.
    """

    mean: Tensor
    std: Tensor
    scale: Tensor
    shift: Tensor

    def __init__(self, features: int, actions: int, hidden: int = 48) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("std", torch.ones(features))
        self.register_buffer("scale", torch.ones(actions))
        self.register_buffer("shift", torch.zeros(actions))
        self.body = nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU())
        self.head = nn.Linear(hidden, actions)

    def raw(self, features: Tensor) -> Tensor:
        """[N, F] -> [N, A] logits before calibration.

        Standardised features are held within WITHIN deviations, so that the ranker never extrapolates: an item unlike
        all that it has learned from is judged like the nearest that it has.
        """
        standard = ((features - self.mean) / self.std).clamp(-WITHIN, WITHIN)
        logits: Tensor = self.head(self.body(standard))
        return logits

    def forward(self, features: Tensor) -> Tensor:
        """[N, F] -> [N, A] calibrated logits."""
        return self.raw(features) * self.scale + self.shift


class Predictor:
    """A ranker that only answers, from plain arrays to plain arrays; safe to share between threads."""

    def __init__(self, network: Ranker) -> None:
        self._network = network.eval().requires_grad_(False)

    @classmethod
    def load(cls, network: Mapping[str, F32]) -> Predictor:
        """From tensors by name; raises BundleError when names or shapes are not a Ranker's."""
        try:
            hidden, features = network["body.0.weight"].shape
            ranker = Ranker(features, network["head.weight"].shape[0], hidden)
            ranker.load_state_dict({name: torch.from_numpy(np.array(t)) for name, t in network.items()})
        except (KeyError, ValueError, RuntimeError) as error:
            raise BundleError(f"these tensors are not a ranker: {error}") from error
        if (heads := ranker.head.out_features) != len(ACTIONS):
            raise BundleError(f"the ranker predicts {heads} actions, expected {len(ACTIONS)}: {', '.join(ACTIONS)}")
        return cls(ranker)

    @property
    def features(self) -> int:
        """F, the number of input features."""
        return len(self._network.mean)

    def p(self, features: F32) -> F32:
        """[N, F] -> [N, A] calibrated probabilities in [0, 1], p(complete) at most p(play) (`coherent` says how).

        Raises FloatingPointError where the network gives no number.
        """
        with torch.inference_mode():
            answer: F32 = torch.sigmoid(self._network(torch.from_numpy(features))).numpy()
        return coherent(answer)


def tensors(network: Ranker) -> dict[str, F32]:
    """The weights as arrays by name, as `Predictor.load` takes them."""
    return {name: t.detach().cpu().numpy().astype(np.float32) for name, t in network.state_dict().items()}
