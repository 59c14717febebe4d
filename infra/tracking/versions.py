"""What a run was made with: the commit of the code or the package's version, and every installed package."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path

from xclr import __version__
from xclr.owncode import commit_of

ROOT = Path(__file__).parents[2]  # of the repository, where this is one
GIT_COMMIT, VERSION = "mlflow.source.git.commit", "xclr.version"  # tags
VERSIONS = "versions.txt"


@cache
def code_tags() -> Mapping[str, str]:
    """The package's version and, where the code lies in its own repository, the commit, as tags of a run."""
    found = commit_of(ROOT)
    return {VERSION: __version__} | ({} if found is None else {GIT_COMMIT: found})


@cache
def installed() -> str:
    """Every installed package as pip takes it, and the Python that it is installed in."""
    found = {each.name: each.version for each in metadata.distributions()}
    lines = [f"{name}=={version}" for name, version in sorted(found.items(), key=lambda each: each[0].lower())]
    return "\n".join([f"# Python {platform.python_version()} on {platform.system()} {platform.machine()}", *lines, ""])
