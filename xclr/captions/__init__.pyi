from .collect import run as run
from .source import Reader as Reader
from .source import reader_of as reader_of
from .text import normalise as normalise
