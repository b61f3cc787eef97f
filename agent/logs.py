"""Structured logs on stderr: one JSON object a line.

A record says what it was given on purpose (``extra``). Of an exception only its kind and its place
are written: its text may quote a value.

One occasion can concern thousands of secrets, and a local user can be refused as often as it likes:
of lines below ``error`` that say the same, only the first are written, and then their number.
"""

from __future__ import annotations

import logging
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TextIO

import msgspec

MOST = 20
"""Lines that say the same within :data:`WITHIN`."""
WITHIN = 30.0
"""Seconds."""
_APART = ("uid", "destination")
"""One user's lines do not hide another's, nor do one file's."""
_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """Formats records as JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line."""
        line: dict[str, object] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {key: value for key, value in record.__dict__.items() if key not in _STANDARD}
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = record.exc_info[0].__name__
            line["places"] = [
                f"{frame.filename}:{frame.lineno} {frame.name}"
                for frame in traceback.extract_tb(record.exc_info[2])[-12:]
            ]
        return msgspec.json.encode(line, enc_hook=str).decode("utf-8")


@dataclass(kw_only=True, slots=True)
class _Alike:
    """Lines that say the same."""

    record: logging.LogRecord
    until: float
    count: int = 0


class BoundedHandler(logging.StreamHandler[TextIO]):
    """Writes lines, and counts what says the same too often.

    Args:
        stream: where to.
        clock: seconds.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(stream)
        self._clock = clock
        self._alike: dict[tuple[object, ...], _Alike] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record unless it is one too many."""
        now = self._clock()
        self._sum_up(now)
        if logging.INFO <= record.levelno < logging.ERROR:
            key = (record.name, record.msg, *(record.__dict__.get(name) for name in _APART))
            alike = self._alike.setdefault(key, _Alike(record=record, until=now + WITHIN))
            alike.count += 1
            if alike.count > MOST:
                return
            if alike.count == MOST:
                record.__dict__["further"] = f"only counted for {WITHIN:g} seconds"
        super().emit(record)

    def close(self) -> None:
        """Write what was only counted."""
        self._sum_up(float("inf"))
        super().close()

    def _sum_up(self, now: float) -> None:
        for key, alike in list(self._alike.items()):
            if alike.until <= now:
                del self._alike[key]
                if alike.count > MOST:
                    kept = {name: alike.record.__dict__.get(name) for name in _APART}
                    summary = logging.makeLogRecord(
                        {
                            "name": alike.record.name,
                            "levelno": alike.record.levelno,
                            "levelname": alike.record.levelname,
                            "msg": alike.record.msg,
                            "left_out": alike.count - MOST,
                            **{name: value for name, value in kept.items() if value is not None},
                        }
                    )
                    super().emit(summary)


def set_up(level: str) -> None:
    """Send everything at ``level`` and above to stderr as JSON."""
    handler = BoundedHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # The WebSocket library logs frames at debug level, and they hold secrets.
    logging.getLogger("websockets").setLevel(logging.WARNING)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
