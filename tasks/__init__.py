"""Prefect tasks: one a stage kind; they take and return artifacts, never tensors."""

from tasks.compare import comparison
from tasks.data import captions, class_graph, embeddings, graph, images
from tasks.evaluate import features, suite
from tasks.pretrain import pretrain

__all__ = ["captions", "class_graph", "comparison", "embeddings", "features", "graph", "images", "pretrain", "suite"]
