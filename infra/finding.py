"""What a check of `xclr doctor` says."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict


class Finding(BaseModel):
    """What a check found: `wrong` is needed and missing, `optional` is missing and some recipes need it."""

    model_config = ConfigDict(frozen=True)
    check: str
    state: Literal["ok", "optional", "wrong"]
    found: str
    remedy: str = ""
