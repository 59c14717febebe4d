"""Errors that say what to do next."""

from pathlib import Path

from xclr.printable import printable


def anew(folder: Path) -> str:
    """The remedy for an artifact that is whole and of no use: it would be found again."""
    return f"remove {folder} and run the recipe again, which makes it anew"


class XclrError(Exception):
    """A problem the user can mend: `message` says what is wrong, `remedy` what to do; both may quote anything."""

    def __init__(self, message: str, remedy: str = "") -> None:
        self.message, self.remedy = printable(message), printable(remedy)
        super().__init__(self.message, self.remedy)

    def __str__(self) -> str:
        return f"{self.message}\n  -> {self.remedy}" if self.remedy else self.message

    @property
    def line(self) -> str:
        """Both in one line, without what the message quotes below its first."""
        first, remedy = self.message.partition("\n")[0], " ".join(self.remedy.split())
        return f"{first} -> {remedy}" if remedy else first


class RecipeError(XclrError):
    """The recipe cannot be read: unknown name or key, wrong type or value."""


class DataError(XclrError):
    """The input data cannot be used as they are."""


class TextModelError(XclrError):
    """The text model is not on this machine and cannot be fetched."""


class StoreError(XclrError):
    """HOME cannot be written, or an artifact is damaged."""


class JobError(XclrError):
    """A job ended without its result."""


class NodeError(JobError):
    """The node that a job ran on has a fault: another one would do."""


class BusyError(JobError):
    """Another process is writing the same artifact."""


class WeakError(JobError):
    """A training that its sweep gave up, because others are better."""


class Stopped(Exception):  # noqa: N818
    """Work that ended at a step boundary because it was asked to; what it came to is on disk."""

    def __init__(self, message: str, number: int | None = None) -> None:
        super().__init__(message)
        self.number = number  # of the signal that asked this process
