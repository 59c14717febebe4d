"""What the environment's variables say."""

from __future__ import annotations

import os
import socket


def setting(name: str) -> str | None:
    """The value of a variable; None where it is unset or blank."""
    return os.environ.get(name, "").strip() or None


def node_name() -> str:
    """What Slurm calls this machine, or it itself."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()
