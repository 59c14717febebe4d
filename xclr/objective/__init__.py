"""Contrastive objectives: targets, the loss, plain and block by block, and candidates gathered from all ranks."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
