"""What a page must know of a run."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from xclr.recipe import Recipe
from xclr.sweep.spec import Sweep


class RunFacts(Protocol):
    """A run: its id, what was run, when, how it ended, and the digest of its scores where it has them."""

    @property
    def run(self) -> str: ...

    @property
    def recipe(self) -> Recipe: ...

    @property
    def recipes(self) -> Sequence[Recipe]: ...

    @property
    def sweep(self) -> Sweep | None: ...

    @property
    def state(self) -> str: ...

    @property
    def started(self) -> datetime: ...

    @property
    def ended(self) -> datetime | None: ...

    @property
    def scores(self) -> str | None: ...
