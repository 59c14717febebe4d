"""X-CLR, the library: captions, images, embeddings, graph, objectives, trainer, evaluation."""

__version__ = "0.1.0"
