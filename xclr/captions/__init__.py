"""Captions: read, normalised, exactly deduplicated."""

from xclr.captions.collect import SOURCES, run
from xclr.captions.source import Source
from xclr.captions.text import normalise
from xclr.datafiles import Picture

__all__ = ["SOURCES", "Picture", "Source", "normalise", "run"]
