"""A stage as its job runs it, then the most memory that it had in MB: `python -m tests.bench.alone STAGE.json OUT`."""

from __future__ import annotations

import sys
from pathlib import Path

from xclr.job import main

STATUS = Path("/proc/self/status")


def peak_mb() -> float:
    """Of this program since it began; ru_maxrss begins with what its starter had."""
    (line,) = (each for each in STATUS.read_text().splitlines() if each.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024 / 1e6


if __name__ == "__main__":
    code = main(Path(sys.argv[1]), Path(sys.argv[2]))
    print(peak_mb())
    sys.exit(code)
