"""How a run takes what is there, and what failed before."""

from typing import Literal

Mode = Literal["cached", "retry", "force", "read-only"]
