"""What tests do with a cloud."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from secrethub.node import KeyServiceSettings


@dataclass
class Cloud:
    """A running cloud with one key.

    Attributes:
        settings: of the key, as a node has them.
        stop: makes the cloud go away.
        deny: gives the node credentials that are no good.
    """

    settings: KeyServiceSettings
    stop: Callable[[], object]
    deny: Callable[[], None]
    stopped: bool = False

    def close(self) -> None:
        """Make the cloud go away, if it has not yet."""
        if not self.stopped:
            self.stopped = True
            self.stop()


class _Page(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        """Answer as if everything were well, and nothing that was asked for."""
        self.rfile.read(int(self.headers["Content-Length"]))
        content = b"<html>Please sign in to the network.</html>"
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextlib.contextmanager
def something_else() -> Iterator[str]:
    """Run what answers in a cloud's place, and is none; its URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Page)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
