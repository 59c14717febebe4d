"""Pictures: every row accounted for, packed into shards, read back as tensors."""

from xclr.images.pack import inspect, run
from xclr.images.read import decode, read_pictures, usable_rows

__all__ = ["decode", "inspect", "read_pictures", "run", "usable_rows"]
