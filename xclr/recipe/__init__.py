"""Recipes: frozen, checked descriptions of a run, read from YAML."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
