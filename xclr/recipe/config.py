"""The base of every config."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict
from pydantic_core import CoreSchema, core_schema

MIN_SIDE = 8  # pixels; smaller pictures show nothing
LATER: Any = {"later": True}  # marks a field that came later; at its default it stays out of digests, as it was before
RUNTIME: Any = {"runtime": True}  # marks a field that never changes a value; it stays out of digests


def host_of(url: str) -> str:
    """Host and port of an http(s) address; empty for another string."""
    parts = urlsplit(url)
    return parts.netloc if parts.scheme in {"http", "https"} else ""


class OneOf:
    """Marks a text as one of a registry's names; forms list them."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = list(names)

    def __get_pydantic_core_schema__(self, *_: object) -> CoreSchema:
        return core_schema.literal_schema(self.names)


class Config(BaseModel):
    """Base of every config: immutable, and strict about unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
