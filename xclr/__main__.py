"""The command `xclr`, also `python -m xclr`: finds the pipeline and starts its command line.

In a checkout flows, tasks and infra lie beside this package, in a wheel below it, in `_pipeline`, so that their names
meet nobody else's; `infra/wheel.py` puts them there.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

PACKAGE = Path(__file__).parent
BELOW = PACKAGE / "_pipeline"


def find_pipeline() -> None:
    """Put the folder of flows, tasks and infra on the path."""
    sys.path.insert(0, str(BELOW if BELOW.is_dir() else PACKAGE.parent))


def main() -> None:
    """Entry point of the console script; says what is missing where the library was installed alone."""
    find_pipeline()
    try:
        start = import_module("flows.cli").main  # by name: the library knows no flows
    except ModuleNotFoundError as error:
        raise SystemExit(
            f"xclr: {error.name} is not installed: here is the library alone\n  -> pip install 'xclr[pipeline]'"
        ) from None
    start()


if __name__ == "__main__":
    main()
