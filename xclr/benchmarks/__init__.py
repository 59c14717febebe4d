"""The published data sets that models are judged on, read from folders or tars in their own layouts."""

from xclr.benchmarks.benchmark import MAPPING, Benchmark, Layout, explaining, write
from xclr.benchmarks.readers import BORDER, LAYOUTS, READERS, Reader, listing
from xclr.benchmarks.tree import Tree

__all__ = [
    "BORDER",
    "LAYOUTS",
    "MAPPING",
    "READERS",
    "Benchmark",
    "Layout",
    "Reader",
    "Tree",
    "explaining",
    "listing",
    "write",
]
