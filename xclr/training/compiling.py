"""torch.compile of a training's step, where it can be had."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import torch
from torch import nn

from xclr.recipe import TrainConfig

COMPILED = "compiled"  # in HOME: code that trainings share
COMPILERS = {"cpu": ("CXX", "g++", "clang++"), "cuda": ("CC", "gcc", "clang", "cc")}  # of the device's code


def compile_step(step: nn.Module, backbone: nn.Module, config: TrainConfig, device: torch.device) -> None:
    """Compile backbone, projector and plain loss as one, where the config says so; a line says where it cannot be.

    Of a batch that goes block by block it is the backbone alone.
    """
    if not config.compile:
        return
    if not compiles(config, device):
        names = COMPILERS[device.type]
        print(
            f"train.compile: no compiler in PATH ({', '.join(names[1:])}), so that the step is not compiled; "
            "apt-get install g++, or name one in CC and CXX",
            flush=True,
        )
        return
    plain = config.micro_batch is None and 2 * config.batch_size < config.blockwise_from
    (step if plain else backbone).compile(mode=config.compile_mode)


def compiles(config: TrainConfig, device: torch.device) -> bool:
    """Whether the config says so, and what makes code for the device can be started."""
    names = COMPILERS.get(device.type)
    return config.compile and (names is None or has_compiler(*names))


def has_compiler(variable: str, *names: str) -> bool:
    """Whether one of the programs, or what an environment variable names, can be started."""
    return any(shutil.which(each) for each in (os.environ.get(variable, ""), *names) if each)


def keep_compiled(home: Path) -> None:
    """Have torch keep compiled code in HOME, unless the environment says where: the next training starts with it."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(home / COMPILED))
