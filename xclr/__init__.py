"""X-CLR, the library: captions, images, embeddings, graph, objectives, trainer, evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from xclr.opened import Opened

__version__ = "0.1.0"


def open(place: str | Path | None = None, run: str | None = None) -> Opened:
    """The newest run of a HOME that completed, or of those that `run` names by their id or recipe; else the newest.

    place: a HOME, or the name of a run in the one that XCLR_HOME names, else .xclr. Raises StoreError when there is
    no such run, with the names that there are.
    """
    from xclr.opened import open_run  # here, because `import xclr` is for those, too, who want its version alone

    return open_run(place, run)
