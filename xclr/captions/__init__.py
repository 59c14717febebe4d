"""Captions: read, normalised, exactly deduplicated."""

from xclr.captions.collect import SOURCES, run
from xclr.captions.source import Source
from xclr.captions.text import normalise

__all__ = ["SOURCES", "Source", "normalise", "run"]
