"""How a flow run that fails says why: in one line that has the remedy, where Prefect would show a traceback."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import wraps
from inspect import signature
from typing import ParamSpec, cast

from prefect.states import Failed

from xclr.errors import XclrError

P = ParamSpec("P")
LOGGERS = ("prefect.flow_runs", "prefect.task_runs")


class Brief(logging.Filter):
    """Shows an XclrError by what it says, without the traceback of where it was found."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Shorten what is logged of an XclrError; everything is shown."""
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, XclrError):
            record.msg, record.args, record.exc_info = str(error), (), None
        return True


BRIEF = Brief()


def saying_why(flow: Callable[P, str]) -> Callable[P, str]:
    """A flow's function, whose run ends as failed with the line of an XclrError; a caller gets the error itself."""

    @wraps(flow)
    def call(*arguments: P.args, **named: P.kwargs) -> str:
        for name in LOGGERS:
            logging.getLogger(name).addFilter(BRIEF)
        try:
            return flow(*arguments, **named)
        except XclrError as error:
            return cast("str", Failed(message=error.line, data=error))  # a state: Prefect raises what it holds

    call.__signature__ = signature(flow, eval_str=True)  # type: ignore[attr-defined]  # names mean nothing in this file
    return call
