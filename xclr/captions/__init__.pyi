from .collect import SOURCES as SOURCES
from .collect import run as run
from .source import Source as Source
from .text import normalise as normalise
