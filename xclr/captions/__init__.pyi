from .collect import run as run
from .source import SourceReader as SourceReader
from .source import reader_of as reader_of
from .text import normalise as normalise
