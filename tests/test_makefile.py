"""What make says before it installs anything."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`make demo` with its output; MAKEFLAGS of an outer make would change what is printed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    arguments = ("make", "--no-print-directory", "-C", str(ROOT), *arguments)
    return subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=60)


def python_that_fails_on(word: str, folder: Path) -> Path:
    """A program that is Python but for one check."""
    path = folder / "python"
    path.write_text(f'#!/bin/sh\ncase "$2" in *{word}*) exit 1;; *) exit 0;; esac\n')
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("word", "advice"),
    [
        ("version_info", "Python 3.11 or newer is needed"),
        ("ensurepip", "apt-get install python3-venv"),
        ("disk_usage", "12 GB of free disk are needed"),
    ],
)
def test_what_is_missing_is_told_in_one_line(tmp_path, word, advice):
    done = make("demo", f"PYTHON={python_that_fails_on(word, tmp_path)}", f"VENV={tmp_path / 'venv'}")
    assert done.returncode != 0
    (line,) = done.stdout.splitlines()
    assert advice in line
    assert not (tmp_path / "venv").exists()


def test_the_default_is_help():
    done = make()
    assert done.returncode == 0
    for target in ("demo", "test", "check", "coverage", "fuzz", "lint", "bench", "bench-scale", "serve"):
        assert target in done.stdout
