"""The command line `xclr`."""

from flows.cli.app import main

__all__ = ["main"]
