"""Prefect tasks: one a stage kind; they take and return artifacts, never tensors."""

from tasks.compare import comparison
from tasks.data import captions, class_graph, embeddings, graph, graph_report, images, source
from tasks.evaluate import benchmark, export, made_of, reference, suite
from tasks.pretrain import pretrain
from tasks.sweep import level

__all__ = [
    "benchmark",
    "captions",
    "class_graph",
    "comparison",
    "embeddings",
    "export",
    "graph",
    "graph_report",
    "images",
    "level",
    "made_of",
    "pretrain",
    "reference",
    "source",
    "suite",
]
