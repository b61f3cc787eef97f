"""Reads whose answer is at hand, carried out without a task: what most requests are.

Everything such a read needs is in memory (``operations/reread.py``), so there is one thing to wait for, that
its entry becomes durable, and the ledger tells that itself. A task, its coroutines and the messages of ASGI
between them would cost as much as the read. Whatever is not as expected goes the whole way instead.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from secrethub.engines.runtime import Core
from secrethub.errors import SecretHubError
from secrethub.operations.reread import Reread
from serve.cycle import Cycle

if TYPE_CHECKING:
    from serve.app import Application

_log = logging.getLogger(__name__)


class AtOnce:
    """One read that waits for its entry (:class:`~secrethub.storage.ledger.Waiter`)."""

    __slots__ = ("_application", "_core", "_cycle", "_read", "_started", "_whole_way")

    def __init__(
        self, application: Application, core: Core, read: Reread, cycle: Cycle, whole_way: Callable[[], None]
    ) -> None:
        """Prepare.

        Args:
            application: the door's.
            core: this process.
            read: what was asked for, and its answer.
            cycle: of the connection, which takes the answer.
            whole_way: carries the request out anew.
        """
        self._application = application
        self._core = core
        self._read = read
        self._cycle = cycle
        self._whole_way = whole_way
        self._started = time.monotonic()

    def begin(self) -> None:
        """Hand the entry in.

        Raises:
            Unavailable: no entries are taken.
        """
        self._core.ledger.enter(self._read.entry(), self)
        self._core.ledger.open += 1

    def done(self) -> bool:
        """Whether nobody waits: what was read is written down even when the client is gone."""
        return False

    def set_result(self, _: None, /) -> None:
        """Answer: the entry is durable."""
        self._core.ledger.open -= 1
        try:
            if self._core.ledger.fresh and self._read.holds():
                self._count("done")
                self._cycle.answer(*self._application.encoded(self._read))
            else:
                self._whole_way()
        except Exception as exc:  # noqa: BLE001 - others wait to be told, too
            self._fail(exc)

    def set_exception(self, exception: SecretHubError, /) -> None:
        """Say why there is no answer."""
        self._core.ledger.open -= 1
        self._fail(exception)

    def _fail(self, exc: Exception) -> None:
        self._count(exc.code if isinstance(exc, SecretHubError) else "internal")
        try:
            self._cycle.answer(*self._application.failed(exc, self._read.call.request_id))
        except RuntimeError:
            # What uvloop says of a transport that is closed; the ledger writes down whatever else it may be.
            _log.exception("request %s could not be answered", self._read.call.request_id)

    def _count(self, outcome: str) -> None:
        seconds = time.monotonic() - self._started
        self._core.metrics.requests.count(self._read.operation.name, outcome, seconds)
