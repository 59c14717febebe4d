"""Captions become a similarity graph: unit vectors, nearest neighbours, class graphs, and the lookups training uses."""

from xclr.graph.classes import run as run_class_graph
from xclr.graph.embed import embed_captions
from xclr.graph.embed import run as run_embeddings
from xclr.graph.encoder import Encoder, SentenceEncoder
from xclr.graph.knn import Joined, TopK, cross_join, merge_topk, self_join, topk
from xclr.graph.neighbours import run as run_graph
from xclr.graph.similarity import (
    ClassGraph,
    EmbeddingLookup,
    KnnGraph,
    RandomPair,
    SameClass,
    SameRow,
    SimilaritySource,
    open_similarity,
)

__all__ = [
    "ClassGraph",
    "EmbeddingLookup",
    "Encoder",
    "Joined",
    "KnnGraph",
    "RandomPair",
    "SameClass",
    "SameRow",
    "SentenceEncoder",
    "SimilaritySource",
    "TopK",
    "cross_join",
    "embed_captions",
    "merge_topk",
    "open_similarity",
    "run_class_graph",
    "run_embeddings",
    "run_graph",
    "self_join",
    "topk",
]
