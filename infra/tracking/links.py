"""Where MLflow's store and pages are."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

DATABASE = "mlflow.db"  # in STATE


def sqlite_uri(state: Path) -> str:
    """The tracking store that needs no server."""
    return f"sqlite:///{state.absolute()}/{DATABASE}"


def ui_address(uri: str) -> str | None:
    """Where the pages of a tracking server are, without the name and password that its address may hold."""
    parts = urlsplit(uri)
    if parts.scheme not in {"http", "https"}:
        return None
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path.rstrip("/"), "", ""))


def runs_page(base: str, experiment: str) -> str:
    """The list of an experiment's runs; without the workflow MLflow opens its pages for language models."""
    return f"{base}/#/experiments/{experiment}/runs?workflowType=machine_learning"
