"""What is done to a picture before a network sees it, as values that any library can follow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Interpolation = Literal["bilinear", "bicubic"]


@dataclass(frozen=True)
class Preparation:
    """What is done to a picture: `border` pixels are cut from each side, the shortest edge is resized to `resize`, the
    centre of size x size pixels is kept, and each channel becomes (x / 255 - mean) / std.

    Without `crop` the whole picture is squashed to resize x resize instead, so that nothing is lost where that is
    `size`. Raises ValueError where there is less than `size` to keep.
    """

    size: int
    resize: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Interpolation
    border: int = 0
    crop: bool = True

    def __post_init__(self) -> None:
        if self.resize < self.size:
            raise ValueError(f"{self.size} pixels cannot be cut from an edge of {self.resize}")
