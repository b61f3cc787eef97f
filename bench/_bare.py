"""A bare ASGI app: the yardstick that stands beside every figure.

With the same headers and a body of the same size, plain and with TLS; inside a Ray Serve replica, or in a
plain process. Served twice: by SecretHub's own listeners, which write an answer in one piece, and by uvicorn
as it comes. Prints its four addresses as one JSON line and ends when its standard input ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from secrethub.node import Listener
from secrethub.pki.tls import server_context
from secrethub.wire.envelope import encode_envelope
from serve.app import Application
from serve.errors import ANSWER_HEADERS
from serve.heap import settle
from serve.listeners import HttpListener
from serve.protocol import Take
from serve.timing import Timing

_BODY = encode_envelope(
    "0" * 36,
    data={
        "data": {"user": "app", "password": "x" * 24},
        "metadata": {
            "created_time": "2030-01-31T12:00:00.000000Z",
            "custom_metadata": None,
            "deletion_time": "",
            "destroyed": False,
            "version": 1,
        },
    },
)
_NAMES = ("http", "https", "uvicorn-http", "uvicorn-https")
_HEADERS = [
    *ANSWER_HEADERS,
    (b"x-request-id", b"0" * 36),
    (b"content-length", str(len(_BODY)).encode()),
]


async def bare(_scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Read the request, answer the same bytes always."""
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
    await send({"type": "http.response.body", "body": _BODY})


class UvicornListener(HttpListener):
    """The same listener with uvicorn's own protocol."""

    @staticmethod
    def connections(timing: Timing, take: Take | None) -> Callable[..., HttpToolsProtocol]:  # noqa: ARG004
        """Return uvicorn's protocol as it is."""
        return HttpToolsProtocol


async def open_doors(certificate: str, key: str) -> list[HttpListener]:
    """Open a plain and a TLS listener of each kind on free loopback ports."""
    context = server_context(Path(certificate).read_bytes(), Path(key).read_bytes())
    doors = [
        kind(cast("Application", bare), Listener("127.0.0.1", _free_port()), context=tls)
        for kind in (HttpListener, UvicornListener)
        for tls in (None, context)
    ]
    for door in doors:
        await door.start()
    return doors


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def serving(*, ray: bool) -> Iterator[dict[str, str]]:
    """Run this module as a process and give its addresses by ``_NAMES``."""
    root = Path(__file__).resolve().parents[1]
    argv = [sys.executable, "-m", "bench._bare", *(["--ray"] if ray else [])]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            argv,
            cwd=root,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        try:
            assert process.stdout is not None
            line = next((line for line in process.stdout if line.startswith("{")), None)
            if line is None:
                log.seek(0)
                raise RuntimeError(
                    "the bare app did not start:\n" + log.read().decode(errors="replace")[-2000:]
                )
            yield json.loads(line)
        finally:
            process.communicate(timeout=60)


def _certificate(folder: Path) -> tuple[str, str]:
    """Make a certificate like the gateway's: ECDSA P-256."""
    from datetime import UTC, datetime
    from ipaddress import ip_address

    from secrethub.pki.chain import to_pem
    from secrethub.pki.issuing import Names, issue, make_authority, make_root
    from secrethub.pki.keys import generate, private_pem
    from secrethub.pki.names import gateway_uri
    from secrethub.pki.profiles import GATEWAY, TRANSPORT

    now, key = datetime.now(UTC), generate("ecdsa-p256")
    root = make_root(generate("ecdsa-p384"), "bare", now)
    issuer = make_authority(root, TRANSPORT, generate("ecdsa-p384"), now)
    names = Names(
        common_name="127.0.0.1", addresses=(ip_address("127.0.0.1"),), uris=(gateway_uri("bare", "bare"),)
    )
    made = issue(issuer, GATEWAY, key.public_key(), names, now)
    (folder / "cert.pem").write_text(to_pem(made, *issuer.chain))
    (folder / "key.pem").write_bytes(private_pem(key))
    return str(folder / "cert.pem"), str(folder / "key.pem")


def _addresses(doors: list[HttpListener]) -> str:
    schemes = ("http", "https", "http", "https")
    urls = [f"{scheme}://127.0.0.1:{door.port}" for scheme, door in zip(schemes, doors, strict=True)]
    return json.dumps(dict(zip(_NAMES, urls, strict=True)))


def _plain(certificate: str, key: str) -> None:
    import uvloop

    async def run() -> None:
        doors = await open_doors(certificate, key)
        settle()
        print(_addresses(doors), flush=True)
        await asyncio.to_thread(sys.stdin.read)

    uvloop.run(run())


def _in_ray(certificate: str, key: str) -> None:
    # As SecretHub's own replicas, see cluster/ray_plan.py.
    os.environ.update(RAY_worker_niceness="0")
    import ray
    from ray import serve

    class Replica:
        async def addresses(self) -> str:
            self._doors = await open_doors(certificate, key)
            settle()
            return _addresses(self._doors)

    # Serve's stubs take the decorated class for itself.
    replica: Any = serve.deployment(num_replicas=1, ray_actor_options={"num_cpus": 0})(Replica)
    ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level="ERROR", num_cpus=2)
    try:
        serve.start(proxy_location="Disabled")
        handle = serve.run(replica.bind(), name="bare", route_prefix=None)
        print(handle.addresses.remote().result(timeout_s=60), flush=True)
        sys.stdin.read()
    finally:
        serve.shutdown()
        ray.shutdown()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        (_in_ray if "--ray" in sys.argv else _plain)(*_certificate(Path(name)))
