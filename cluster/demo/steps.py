"""Telling what happens, step by step, with times."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager


class DemoFailed(Exception):
    """A step did not do what it must.

    Attributes:
        message: one line for people.
        detail: the end of a log, or nothing.
    """

    def __init__(self, message: str, detail: str = "") -> None:
        super().__init__(message, detail)
        self.message = message
        self.detail = detail


def tell(line: str) -> None:
    """Print a line at once; when nobody can read any more, go on in silence: there is much to stop."""
    try:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Steps:
    """Prints each step when it begins, what it showed, and how long it took."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._number = 0
        self.current = "beginning"

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """One step; its title is what a failure inside is reported with."""
        self.current = title
        self._number += 1
        began = time.monotonic()
        self._print(f"[{began - self._started:5.1f} s] {self._number:2}. {title}")
        yield
        self._print(f"{'':14}({time.monotonic() - began:.2f} s)")

    def show(self, text: str) -> None:
        """Something that the step brought to light; may have several lines."""
        for line in text.splitlines() or [""]:
            self._print(f"{'':14}{line}")

    def total(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._started

    def _print(self, line: str) -> None:
        tell(line)
