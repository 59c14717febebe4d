"""What the environment's variables say."""

from __future__ import annotations

import os


def setting(name: str) -> str | None:
    """The value of a variable; None where it is unset or blank."""
    return os.environ.get(name, "").strip() or None
