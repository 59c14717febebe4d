"""Prefect tasks: they take stages and return artifacts, never tensors."""

from tasks.level import level
from tasks.make import make
from tasks.source import source

__all__ = ["level", "make", "source"]
