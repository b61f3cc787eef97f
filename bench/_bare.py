"""A bare ASGI app served as SecretHub serves its own: the yardstick that stands beside every figure.

uvicorn on uvloop with httptools, on ``SO_REUSEPORT`` sockets that the process opens itself, plain and
with TLS; inside a Ray Serve replica, or in a plain process. Prints its two addresses as one JSON line
and ends when its standard input ends.
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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_BODY = json.dumps({"request_id": "0" * 36, "data": {"data": {"user": "app", "password": "x" * 24}}}).encode()
_HEADERS = [
    (b"content-type", b"application/json"),
    (b"cache-control", b"no-store"),
    (b"content-length", str(len(_BODY)).encode()),
]


async def bare(_scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Read the request, answer the same bytes always."""
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
    await send({"type": "http.response.body", "body": _BODY})


async def open_doors(certificate: str, key: str) -> tuple[list[asyncio.Task[None]], list[int]]:
    """Open a plain and a TLS listener on free loopback ports; return their tasks and ports."""
    import uvicorn

    tasks, ports = [], []
    for tls in ({}, {"ssl_certfile": certificate, "ssl_keyfile": key}):
        opened = socket.socket()
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        opened.bind(("127.0.0.1", 0))
        opened.listen(2048)
        # With its own logging set-up uvicorn would close the handlers that Serve has installed.
        config = uvicorn.Config(
            bare, http="httptools", ws="none", lifespan="off", log_config=None, access_log=False, **tls
        )
        server = uvicorn.Server(config)
        server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
        server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign]
        tasks.append(asyncio.create_task(server.serve(sockets=[opened])))
        ports.append(opened.getsockname()[1])
    return tasks, ports


@contextlib.contextmanager
def serving(*, ray: bool) -> Iterator[dict[str, str]]:
    """Run this module as a process and give its addresses: ``http`` and ``https``."""
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


def _addresses(ports: list[int]) -> str:
    return json.dumps({"http": f"http://127.0.0.1:{ports[0]}", "https": f"https://127.0.0.1:{ports[1]}"})


def _plain(certificate: str, key: str) -> None:
    import uvloop

    async def run() -> None:
        _tasks, ports = await open_doors(certificate, key)
        print(_addresses(ports), flush=True)
        await asyncio.to_thread(sys.stdin.read)

    uvloop.run(run())


def _in_ray(certificate: str, key: str) -> None:
    import ray
    from ray import serve

    @serve.deployment(num_replicas=1, ray_actor_options={"num_cpus": 0})
    class Replica:
        async def ports(self) -> list[int]:
            self._tasks, ports = await open_doors(certificate, key)
            return ports

    ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level="ERROR", num_cpus=2)
    try:
        serve.start(proxy_location="Disabled")
        handle = serve.run(Replica.bind(), name="bare", route_prefix=None)
        print(_addresses(handle.ports.remote().result(timeout_s=60)), flush=True)
        sys.stdin.read()
    finally:
        serve.shutdown()
        ray.shutdown()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        (_in_ray if "--ray" in sys.argv else _plain)(*_certificate(Path(name)))
