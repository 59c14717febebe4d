"""What a fuzzer tries."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

Check = Callable[[bytes], None]  # raises whatever must not be raised
Checking = Callable[[Path], AbstractContextManager[Check]]  # in a folder


class Target(NamedTuple):
    """Inputs to begin with, and a check of any."""

    corpus: tuple[bytes, ...]
    checking: Checking
