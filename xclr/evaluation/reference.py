"""The stage `reference`: a network from elsewhere, fetched once and kept as tensors."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from xclr.evaluation.networks.elsewhere import load_reference
from xclr.evaluation.stages import ReferenceConfig
from xclr.stage import Produced, Progress, Stage
from xclr.training import CHECKPOINT
from xclr.training.checkpoint import write_tensors


def run(stage: Stage[ReferenceConfig], out: Path, progress: Progress) -> Produced:
    """Write checkpoint.pt ({"backbone": weights}); what the network is to be shown is among the stats."""
    progress(0, 1)
    network, width, preparation = load_reference(stage.config.reference)
    write_tensors(out / CHECKPOINT, {"backbone": network.state_dict()})
    progress(1, 1)
    return Produced((CHECKPOINT,), {"width": width, "preparation": asdict(preparation)})
