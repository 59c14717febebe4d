"""Captions: read, normalised, exactly deduplicated."""

from xclr.captions.collect import SOURCES, Source, run
from xclr.captions.text import normalise

__all__ = ["SOURCES", "Source", "normalise", "run"]
