"""Captions become a similarity graph: unit vectors, nearest neighbours, class graphs, and the lookups training uses."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
