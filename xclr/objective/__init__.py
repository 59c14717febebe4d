"""Contrastive objectives: targets, the loss, plain and block by block, and candidates gathered from all ranks."""

from xclr.objective.gather import anchor_index, gather_rows, gather_views, world_and_rank
from xclr.objective.loss import (
    TargetRows,
    contrast,
    contrastive,
    cosine_logits,
    default_block,
    xclr_loss,
    xclr_loss_from_embeddings,
)
from xclr.objective.retrieval import retrieve
from xclr.objective.targets import (
    at_least_float32,
    class_targets,
    excluding,
    identity_targets,
    itself,
    itself_and_pair,
    pair_targets,
    self_mask,
    soft_targets,
    softened_targets,
    view_targets,
    weighted_pair_targets,
    weighted_targets,
    without,
)

__all__ = [
    "TargetRows",
    "anchor_index",
    "at_least_float32",
    "class_targets",
    "contrast",
    "contrastive",
    "cosine_logits",
    "default_block",
    "excluding",
    "gather_rows",
    "gather_views",
    "identity_targets",
    "itself",
    "itself_and_pair",
    "pair_targets",
    "retrieve",
    "self_mask",
    "soft_targets",
    "softened_targets",
    "view_targets",
    "weighted_pair_targets",
    "weighted_targets",
    "without",
    "world_and_rank",
    "xclr_loss",
    "xclr_loss_from_embeddings",
]
