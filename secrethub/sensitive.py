"""Holders of secrets that do not show or travel by accident, and process hardening."""

from __future__ import annotations

import ctypes
import resource
import sys
from typing import Generic, NoReturn, TypeVar

_PR_SET_DUMPABLE = 4

T = TypeVar("T", str, bytes)


class Sensitive(Generic[T]):
    """A secret string or byte string: hidden in ``repr`` and ``str``, refuses pickling and JSON.

    Call :meth:`reveal` at the one place that needs the value.
    """

    __slots__ = ("_value",)

    _value: T

    def __init__(self, value: T) -> None:
        self._value = value

    def reveal(self) -> T:
        """Return the secret itself."""
        return self._value

    def __repr__(self) -> str:
        return "Sensitive(…)"

    __str__ = __repr__

    def __bool__(self) -> bool:
        return bool(self._value)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Sensitive value is not pickled; seal it to its receiver instead")


def wipe(buffer: bytearray) -> None:
    """Overwrite ``buffer`` with zeros, keeping its length."""
    buffer[:] = bytes(len(buffer))


def protect_process() -> None:
    """No core dumps and no attaching by processes of the same user (``PR_SET_DUMPABLE`` 0).

    Called first thing by every process that will hold keys. Outside Linux only the core limit is set.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_DUMPABLE) failed")
