"""Whether a job that ended without a word was ended for its memory, as the tails of its logs tell."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

TAIL = 1 << 14  # bytes of a log that are looked at
TRACES = re.compile(  # of Slurm, with and without cgroups, of the kernel, and of allocators that gave up
    rb"(?:slurmstepd|srun)[^\n]*(?:oom.kill|memory limit|out of memory|oom killed)"
    rb"|memory cgroup out of memory|std::bad_alloc|defaultcpuallocator: can't allocate memory"
    rb"|^memoryerror\b|\[errno 12\] cannot allocate memory",
    re.IGNORECASE | re.MULTILINE,
)


def tells_of_memory(logs: Iterable[Path]) -> bool:
    """True when the end of one of the logs says that memory was what the job lacked."""
    return any(TRACES.search(_tail(path)) for path in logs)


def _tail(path: Path) -> bytes:
    with suppress(OSError), path.open("rb") as stream:
        stream.seek(max(0, os.fstat(stream.fileno()).st_size - TAIL))
        return stream.read()
    return b""
