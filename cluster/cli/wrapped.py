"""Answers that were asked to be wrapped: a command that gets one has nothing to go on with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from secrethub.client import Client
from secrethub.client.messages import Reply, Request


class Wrapped(Exception):
    """The answer is kept.

    Attributes:
        info: how to open it.
    """

    def __init__(self, info: Mapping[str, Any]) -> None:
        super().__init__()
        self.info = {name: value for name, value in info.items() if value not in ("", None)}


class WrappingClient(Client):
    """A client that raises :class:`Wrapped` instead of returning an answer without content."""

    def send(self, request: Request) -> Reply:
        """Send a request.

        Raises:
            Wrapped: the answer is kept.
        """
        reply = super().send(request)
        if reply.wrap_info is not None:
            raise Wrapped(reply.wrap_info)
        return reply
