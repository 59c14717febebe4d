"""The formats of an export: what each writes, who can hold it, and the lines that load it without this project."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from xclr.errors import RecipeError
from xclr.recipe import NETWORK, TrainConfig
from xclr.release.card import CARD, Loading, card
from xclr.release.known import Known, known
from xclr.release.preprocessing import PROGRAM, VALUES, write_preprocessing
from xclr.release.released import Released

SAFE, PICKLED, GRAPH, CONFIG = "model.safetensors", "model.pth", "model.onnx", "config.json"
FILES = frozenset({SAFE, PICKLED, GRAPH, CONFIG, VALUES, PROGRAM, CARD})  # all that exports write
DEFAULT = "safetensors"


class Format(NamedTuple):
    """A format: its files, what writes them, how they are loaded, and whether it can hold a backbone."""

    write: Callable[[Released, Path], tuple[str, ...]]
    loading: Callable[[Released], Loading]
    holds: Callable[[Known], bool] = lambda known: True
    needs: str = "torchvision"  # whose network it must be, where it cannot hold all
    packages: tuple[str, ...] = ()  # that writing it takes


def write_safetensors(released: Released, folder: Path) -> tuple[str, ...]:
    """model.safetensors, in the names that the backbone has."""
    return _save(released.state, folder)


def write_torchvision(released: Released, folder: Path) -> tuple[str, ...]:
    """model.pth, a state dict of tensors alone."""
    torch.save(released.state, folder / PICKLED)
    return (PICKLED,)


def write_timm(released: Released, folder: Path) -> tuple[str, ...]:
    """model.safetensors in timm's names, and config.json as timm writes it for its hub."""
    timm = released.known.timm
    assert timm is not None
    how, classes = released.preparation, {"num_classes": 0, "num_features": released.width}
    shown = {
        "input_size": [3, how.size, how.size],
        "fixed_input_size": bool(timm.options),
        "interpolation": how.interpolation,
        "crop_pct": how.size / how.resize,
        "crop_mode": "center" if how.crop else "squash",
        "mean": how.mean,
        "std": how.std,
        "num_classes": 0,
        "first_conv": timm.first_conv,
        "classifier": timm.classifier,
    }
    config: dict[str, Any] = {"architecture": timm.architecture, **classes}
    config |= {"global_pool": timm.global_pool} if timm.global_pool else {}
    config |= {"model_args": dict(timm.options)} if timm.options else {}
    (folder / CONFIG).write_text(json.dumps(config | {"pretrained_cfg": shown}, indent=1) + "\n", encoding="utf-8")
    return (*_save(timm.renamed(released.state), folder), CONFIG)


def write_onnx(released: Released, folder: Path) -> tuple[str, ...]:
    """model.onnx: `pixels`, float32 [batch, 3, s, s] and normalised, to `features`, [batch, F]."""
    size, pixels = released.preparation.size, "pixels"
    torch.onnx.export(
        released.backbone.to(memory_format=torch.contiguous_format),
        (torch.zeros(2, 3, size, size),),
        folder / GRAPH,
        input_names=[pixels],
        output_names=["features"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        external_data=False,
        verbose=False,
    )
    return (GRAPH,)


def _save(state: Mapping[str, Tensor], folder: Path) -> tuple[str, ...]:
    from safetensors.torch import save_file  # here, because no rank but one saves

    save_file(dict(state), folder / SAFE, metadata={"format": "pt"})
    return (SAFE,)


def _with_torchvision(released: Released, imported: str, state: str) -> str:
    network = released.known.torchvision
    assert network is not None
    return (
        f"{imported}\n\nnetwork = torchvision.models.{network.call}\nnetwork.{network.head} = torch.nn.Identity()\n"
        f"network.load_state_dict({state})\nnetwork.eval()"
    )


def load_safetensors(released: Released) -> Loading:
    """By whoever has these names: torchvision, timm, or this project alone."""
    about, state = released.known, f'load_file("{SAFE}")'
    imported = "import torch\nimport torchvision\nfrom safetensors.torch import load_file"
    if about.torchvision is not None:
        return Loading("torchvision safetensors", _with_torchvision(released, imported, state))
    if about.timm is not None:
        return Loading("timm torchvision", _with_timm(released))
    own = TrainConfig(**{name: getattr(released.train, name) for name in NETWORK}).model_dump(exclude_defaults=True)
    given = ", ".join(f"{name}={value!r}" for name, value in own.items())
    code = (
        "import torch\nfrom safetensors.torch import load_file\nfrom xclr.recipe import TrainConfig\n"
        "from xclr.training import build_backbone\n\n"
        f"network, _ = build_backbone(TrainConfig({given}))\nnetwork.load_state_dict({state})\nnetwork.eval()"
    )
    return Loading("xclr", code)


def load_torchvision(released: Released) -> Loading:
    """By torchvision."""
    state = f'torch.load("{PICKLED}", weights_only=True)'
    return Loading("torchvision", _with_torchvision(released, "import torch\nimport torchvision", state))


def _with_timm(released: Released) -> str:
    timm = released.known.timm
    assert timm is not None
    options = "".join(f", {name}={value!r}" for name, value in timm.options.items())
    made = f'timm.create_model("{timm.architecture}", num_classes=0, checkpoint_path="{SAFE}"{options})'
    return f"import timm\nimport torch\n\nnetwork = {made}\nnetwork.eval()"


def load_timm(released: Released) -> Loading:
    """By timm, from the folder, which says which network it is."""
    code = 'import timm\nimport torch\n\nnetwork = timm.create_model("local-dir:.", pretrained=True)\nnetwork.eval()'
    return Loading("timm torchvision", code)


def load_hf(released: Released) -> Loading:
    """By transformers, whose wrapper of timm reads timm's config.json."""
    code = (
        "import torch\nfrom transformers import AutoModel\n\n"
        'model = AutoModel.from_pretrained(".").eval()\n\n\n'
        "def network(pixels):\n    return model(pixels).pooler_output"
    )
    return Loading("transformers timm torchvision", code)


def load_onnx(released: Released) -> Loading:
    """By onnxruntime; torchvision prepares the picture."""
    code = (
        f'import onnxruntime\nimport torch\n\nsession = onnxruntime.InferenceSession("{GRAPH}")\n\n\n'
        'def network(pixels):\n    return session.run(["features"], {"pixels": pixels.numpy()})[0]'
    )
    return Loading("onnxruntime torchvision", code)


def _is_timms(about: Known) -> bool:
    return about.timm is not None


FORMATS: Mapping[str, Format] = {
    "safetensors": Format(write_safetensors, load_safetensors),
    "torchvision": Format(write_torchvision, load_torchvision, lambda about: about.torchvision is not None),
    "timm": Format(write_timm, load_timm, _is_timms, needs="timm"),
    "onnx": Format(write_onnx, load_onnx, packages=("onnx", "onnxscript")),
    "hf": Format(write_timm, load_hf, _is_timms, needs="timm"),
}


def check_format(name: str, train: TrainConfig) -> None:
    """Raise RecipeError for a format that there is not, cannot hold the backbone, or lacks its packages here."""
    if name not in FORMATS:
        near = difflib.get_close_matches(name, FORMATS, n=1) or [DEFAULT]
        raise RecipeError(f"no format {name!r}", f"--format {near[0]}; there are {', '.join(FORMATS)}")
    format, about = FORMATS[name], known(train)
    if not format.holds(about):
        others = ", ".join(each for each, other in FORMATS.items() if other.holds(about))
        raise RecipeError(
            f"format {name} cannot hold {train.backbone}, which {format.needs} does not have", f"--format {others}"
        )
    if missing := [each for each in format.packages if find_spec(each) is None]:
        raise RecipeError(f"format {name} needs {' and '.join(missing)}", f"pip install {' '.join(missing)}")


def write_export(released: Released, name: str, folder: Path) -> tuple[str, ...]:
    """Write a format's files, both of the preprocessing, and the card into a folder; their names."""
    format = FORMATS[name]
    files = (*format.write(released, folder), *write_preprocessing(released.preparation, released.behind, folder))
    (folder / CARD).write_text(card(released, format.loading(released)), encoding="utf-8")
    return (*files, CARD)
