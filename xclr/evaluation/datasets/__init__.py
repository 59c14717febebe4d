"""The published data sets that models are judged on, read from folders or tars in their own layouts."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
