"""What the client says about servers that speak otherwise than its address says."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from secrethub.client import Client, ClientSettings, NotReached


@contextmanager
def listener(answer: bytes) -> Iterator[int]:
    """Take one connection, read what comes first, answer, hang up. Yields the port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        thread.join()


@pytest.mark.parametrize(
    ("scheme", "answer", "advice"),
    [
        ("https", b"HTTP/1.1 400 Bad Request\r\n\r\n", "does it speak http://?"),
        ("http", b"", "does it speak https://?"),
    ],
)
def test_the_other_scheme_is_suggested(scheme: str, answer: bytes, advice: str) -> None:
    """Plain HTTP to a TLS port, and TLS to a plain one, end with the advice to try the other."""
    with listener(answer) as port:
        settings = ClientSettings(address=f"{scheme}://127.0.0.1:{port}", attempts=1)
        with Client(settings) as client, pytest.raises(NotReached) as caught:
            client.read("sys/health")
    assert str(caught.value).endswith(advice)
    assert not caught.value.may_have_changed
