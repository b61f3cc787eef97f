"""Who waits for entries of the ledger, and how they are told."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any, Protocol

from secrethub.errors import SecretHubError

_log = logging.getLogger(__name__)


class Waiter(Protocol):
    """Who waits for an entry: a future, or whatever can be told as one can; what it does then never fails."""

    def done(self) -> bool:
        """Whether nobody waits any more; an entry that is not under way yet is dropped."""
        ...

    def set_result(self, result: None, /) -> None:
        """Take note that the entry is durable."""
        ...

    def set_exception(self, exception: SecretHubError, /) -> None:
        """Take note that it is not, or that this is unknown."""
        ...


def tell(batch: Iterable[tuple[Any, Waiter]], failure: SecretHubError | None) -> None:
    """Tell all who wait for a group of entries that it is durable, or why it is not."""
    for _, waiter in batch:
        try:
            if waiter.done():
                continue
            if failure is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(failure)
        except Exception:  # noqa: BLE001 - nothing is expected, and no waiter may take the others' answers
            # It promised not to; those after it have a right to their answers all the same.
            _log.exception("one who waits for an entry could not be told")
