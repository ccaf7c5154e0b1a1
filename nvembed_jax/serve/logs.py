"""Logs as one JSON object a line, on standard error: what happened, never a text, a key or a path
of a file.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import Any

LOGGERS = ("nvembed_jax", "uvicorn", "grpc", "asyncio")
LEVELS = ("debug", "info", "warning", "error")


class JsonFormatter(logging.Formatter):
    """time, level, logger, event, and the record's `facts`.

    An exception is told by its type and where it was raised; its message could quote a text.
    """

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {
            "time": time,
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **getattr(record, "facts", {}),
        }
        if record.exc_info and record.exc_info[1] is not None:
            line |= _exception(record.exc_info[1])
        return json.dumps(line, ensure_ascii=False, default=str)


def configure(level: str = "info", stream: Any = None) -> None:
    """Sends the logs of the package and of what serves it to `stream`, by default standard error.

    Raises:
        ValueError: an unknown level.
    """
    if level not in LEVELS:
        raise ValueError(f"the log level must be one of {', '.join(LEVELS)}; got {level!r}")
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter())
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(level.upper())
        logger.propagate = False


def _exception(error: BaseException) -> dict[str, Any]:
    frames = traceback.extract_tb(error.__traceback__)[-8:]
    places = [f"{_module(frame.filename)}:{frame.name}:{frame.lineno}" for frame in frames]
    return {"exception": type(error).__name__, "where": places}


def _module(filename: str) -> str:
    return "/".join(filename.replace("\\", "/").rsplit("/", 2)[-2:])
