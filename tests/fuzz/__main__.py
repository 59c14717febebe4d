"""`make fuzz SECONDS=60`: every target as long as the others, from a seed that is printed; what fails is kept."""

from __future__ import annotations

import os
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random, SystemRandom

from tests.fuzz.mutations import mutated
from tests.fuzz.targets import TARGETS


def fuzz(name: str, seed: int, seconds: float, kept: Path) -> int:
    """Inputs tried; those that raise what they must not are written to `kept`, with why."""
    target, rng, tried, until = TARGETS[name], Random(f"{seed} {name}"), 0, time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder, quiet(), target.checking(Path(folder)) as check:
        while time.monotonic() < until:
            data = mutated(rng.choice(target.corpus), rng)
            try:
                check(data)
            except Exception:  # noqa: BLE001 - it is what is looked for
                kept.mkdir(parents=True, exist_ok=True)
                (kept / f"{name}-{seed}-{tried}.bin").write_bytes(data)
                (kept / f"{name}-{seed}-{tried}.txt").write_text(traceback.format_exc())
            tried += 1
    return tried


@contextmanager
def quiet() -> Iterator[None]:
    """Without what decoders write to the terminal of every damaged picture."""
    kept = os.dup(2)
    with Path(os.devnull).open("w") as nothing:
        os.dup2(nothing.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def main(seconds: float, seed: int) -> int:
    """Fuzz all targets; 1 where anything failed."""
    kept = Path(tempfile.mkdtemp(prefix="fuzz-"))
    print(f"seed {seed}: SEED={seed} makes these inputs again", flush=True)
    for name in TARGETS:
        print(f"{name}: {fuzz(name, seed, seconds / len(TARGETS), kept):,} inputs", flush=True)
    found = sorted(kept.glob("*.txt"))
    print(*(f"FAILED {path.with_suffix('.bin')}: {path.read_text().splitlines()[-1]}" for path in found), sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), int(sys.argv[2]) if sys.argv[2:] else SystemRandom().randrange(1 << 32)))
