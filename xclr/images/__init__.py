"""Pictures: every row accounted for, packed into shards, read back as tensors."""

from xclr.images.pack import run
from xclr.images.read import EncodedPictures, PictureFiles, decode, read_pictures, usable_rows

__all__ = ["EncodedPictures", "PictureFiles", "decode", "read_pictures", "run", "usable_rows"]
