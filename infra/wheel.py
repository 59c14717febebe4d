"""How a wheel is laid out: flows, tasks and infra below xclr/_pipeline, where their names meet nobody else's."""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools.command.build_py import build_py

BELOW = Path("xclr") / "_pipeline"  # where xclr/__main__.py looks for them
PIPELINE = ("flows", "tasks", "infra")


class Layout(build_py):  # type: ignore[misc]
    """Copies the packages, and moves the pipeline's; a checkout that is installed as it is (-e) stays as it is."""

    def run(self) -> None:
        """Build, then move."""
        super().run()
        if not self.editable_mode:
            built = Path(self.build_lib)
            shutil.rmtree(built / BELOW, ignore_errors=True)
            (built / BELOW).mkdir()
            for name in PIPELINE:
                (built / name).rename(built / BELOW / name)
