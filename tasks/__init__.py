"""Prefect tasks: one a stage kind; they take and return artifacts, never tensors."""

from tasks.compare import comparison
from tasks.data import captions, class_graph, embeddings, graph, graph_report, images, source
from tasks.evaluate import features, folder_features, suite
from tasks.pretrain import pretrain

__all__ = [
    "captions",
    "class_graph",
    "comparison",
    "embeddings",
    "features",
    "folder_features",
    "graph",
    "graph_report",
    "images",
    "pretrain",
    "source",
    "suite",
]
