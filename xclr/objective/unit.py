"""What a loss takes for granted of its inputs, told before it is computed: unit rows, and cosines."""

from __future__ import annotations

import torch
from torch import Tensor

from xclr.objective.targets import at_least_float32

OFF = 0.01  # of a unit row's norm at most: rows that were normalised in bfloat16 are off by 0.008
Span = tuple[float, float]


def check_inputs(similarity: Tensor | None = None, **rows: Tensor) -> None:
    """Refuse rows that are not unit rows, and similarities that are no cosines; NaN is left to show in the loss.

    similarity: any shape, in [-1, 1]. rows: by the name of the caller's argument, [n, d], any floating dtype. All is
    read from a device at once, which waits for it; code that is being compiled is not checked. Raises ValueError with
    what was seen and the remedy.
    """
    if torch.compiler.is_compiling():
        return
    numbers = {name: _norms(each) for name, each in rows.items()}
    if similarity is not None:
        numbers["similarity"] = similarity.detach()
    ends = torch.stack([end for each in numbers.values() for end in each.aminmax()]).tolist()
    spans: dict[str, Span] = dict(zip(numbers, zip(ends[::2], ends[1::2], strict=True), strict=True))
    for name in rows:
        _check_norms(name, *spans[name])
    if similarity is not None:
        _check_cosines(*spans["similarity"])


def _norms(rows: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(rows.detach(), dim=-1, dtype=at_least_float32(rows))
    return norms


def _check_norms(name: str, least: float, most: float) -> None:
    if least == 0:
        raise ValueError(f"{name} has a row of zeros, norm 0, which points nowhere: leave out what gave it")
    if least < 1 - OFF or most > 1 + OFF:
        seen = " to ".join(dict.fromkeys(f"{each:.4g}" for each in (least, most)))
        raise ValueError(
            f"the rows of {name} have norm {seen}, not 1: give torch.nn.functional.normalize({name}, dim=-1)"
        )


def _check_cosines(least: float, most: float) -> None:
    if least < -1 - 2 * OFF or most > 1 + 2 * OFF:
        raise ValueError(
            f"similarity is from {least:.4g} to {most:.4g}, outside [-1, 1]: it is that of unit rows, e @ e.T with "
            "e = torch.nn.functional.normalize(e, dim=-1), not yet divided by a temperature"
        )
