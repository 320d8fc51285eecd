"""The multi-action ranker: a small network that predicts a calibrated probability of each action."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from recsys.domain.errors import BundleError
from recsys.domain.types import ACTIONS, F32
from recsys.models.probabilities import coherent

MAX_DEVIATIONS = 3.0
"""Standard deviations from the training mean at which standardised features are clipped."""

EXCLUDED_VALUE = 1e9
"""Standard deviation stored for a feature that was constant in training, so that it has no effect in serving."""


class Ranker(nn.Module):
    """A network with a shared two-layer body and one head per action, on standardised features.

    `mean`, `std` [F] standardise the input; `scale`, `shift` [A] calibrate each logit (Platt 1999). All four are part
    of the weights, so the tensors are the complete model.
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
        """Return [N, A] logits before calibration, for features [N, F].

        Standardised features are clipped to MAX_DEVIATIONS, so that the ranker does not extrapolate: an unusual item
        is scored like the nearest item within the range of the training data.
        """
        standard = ((features - self.mean) / self.std).clamp(-MAX_DEVIATIONS, MAX_DEVIATIONS)
        logits: Tensor = self.head(self.body(standard))
        return logits

    def forward(self, features: Tensor) -> Tensor:
        """Return [N, A] calibrated logits, for features [N, F]."""
        return self.raw(features) * self.scale + self.shift


class Predictor:
    """A trained ranker for inference on numpy arrays. It is thread-safe."""

    def __init__(self, network: Ranker) -> None:
        self._network = network.eval().requires_grad_(False)

    @classmethod
    def load(cls, network: Mapping[str, F32]) -> Predictor:
        """Load a ranker from tensors by name. Raises BundleError if names or shapes do not match a Ranker."""
        try:
            hidden, features = network["body.0.weight"].shape
            ranker = Ranker(features, network["head.weight"].shape[0], hidden)
            ranker.load_state_dict({name: torch.from_numpy(np.array(t)) for name, t in network.items()})
        except (KeyError, ValueError, RuntimeError) as error:
            raise BundleError(f"the network's tensors are not a ranker: {error}") from error
        if (heads := ranker.head.out_features) != len(ACTIONS):
            raise BundleError(f"the ranker predicts {heads} actions, expected {len(ACTIONS)}: {', '.join(ACTIONS)}")
        return cls(ranker)

    @property
    def features(self) -> int:
        """The number of input features, F."""
        return len(self._network.mean)

    def p(self, features: F32) -> F32:
        """Return [N, A] calibrated, coherent probabilities (see `coherent`), for features [N, F].

        Raises FloatingPointError if the network's output is not a number.
        """
        with torch.inference_mode():
            p: F32 = torch.sigmoid(self._network(torch.from_numpy(features))).numpy()
        return coherent(p)


def tensors(network: Ranker) -> dict[str, F32]:
    """Return the weights as arrays by name, the input of `Predictor.load`."""
    return {name: t.detach().cpu().numpy().astype(np.float32) for name, t in network.state_dict().items()}
