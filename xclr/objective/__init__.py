"""Contrastive objectives: targets, the loss, its block-wise twin, and candidates gathered from all ranks."""

from xclr.objective.gather import anchor_index, gather_rows, gather_views, world_and_rank
from xclr.objective.loss import contrastive, cosine_logits, xclr_loss, xclr_loss_from_embeddings
from xclr.objective.targets import (
    class_targets,
    dcl_log_weights,
    excluding,
    identity_targets,
    pair_targets,
    self_mask,
    soft_targets,
)

__all__ = [
    "anchor_index",
    "class_targets",
    "contrastive",
    "cosine_logits",
    "dcl_log_weights",
    "excluding",
    "gather_rows",
    "gather_views",
    "identity_targets",
    "pair_targets",
    "self_mask",
    "soft_targets",
    "world_and_rank",
    "xclr_loss",
    "xclr_loss_from_embeddings",
]
