"""``./dev bench creds-postgresql [--json] [--seconds N] [--connections N] [--iterations N]``: users.

Users of a PostgreSQL of its own, which keeps what it was told (fsync is on). Each is made over HTTP, with a
grant, and has an intent, a lease and its entries in the ledger. Then all are ended at once by
``revoke-prefix``, until the target has none of them any more. Beside it stands how fast the same PostgreSQL
carries out the same statements alone, before SecretHub is started.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import secrets
import sys
import tempfile
import threading
import time
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

import asyncpg

from bench._compare import started
from bench._load import Load, Measured, generator, measure
from cluster.cli.output import Table, render
from cluster.postgres import EmbeddedPostgres
from secrethub.client import Client, ClientSettings
from secrethub.engines.database.scram import verifier
from secrethub.sensitive import Sensitive

T = TypeVar("T")

_MOUNT = "secrets/dynamic/postgresql"
_WARM_UP_SECONDS = 1.0
_IN_FLIGHT_SECONDS = 2.0
"""For requests that nobody waits for any more: their users come too late to be ended with the others."""
_END_SECONDS = 60.0
_POOL = 8
"""Connections to the target, ours and those of nobody but PostgreSQL."""
_PART = "v-root"
"""How the names of SecretHub's users begin."""
_CREATION = [
    "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'",
    'GRANT SELECT ON things TO "{{name}}"',
]


@dataclass(frozen=True, kw_only=True)
class Target:
    """A server to make users at: its URL for us, the port on loopback, and a superuser's password."""

    url: str = field(repr=False)
    port: int
    password: str = field(repr=False)


def main(argv: Sequence[str]) -> int:
    """Measure; 0 when every request succeeded and nobody is left."""
    parser = argparse.ArgumentParser(prog="./dev bench creds-postgresql")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--seconds", type=float, default=5.0, metavar="N", help="of making users (5)")
    parser.add_argument("--connections", type=int, default=32, metavar="N", help="(32)")
    parser.add_argument("--iterations", type=int, default=4096, metavar="N", help="of SCRAM verifiers (4096)")
    parser.add_argument("--single-process", action="store_true", help="without Ray")
    options = parser.parse_args(argv)
    if not options.json:
        print(f"creds-postgresql: starting SecretHub and a PostgreSQL; load by {generator()}")
    with _target() as target:
        alone = asyncio.run(_alone(target.url, options.seconds, options.iterations))
        made, count, took = _measured(target, options)
    print(_json(alone, made, count, took, options) if options.json else _table(alone, made, count, took))
    if made.failed:
        print(f"{made.failed} users could not be made", file=sys.stderr)
    return 1 if made.failed else 0


def _measured(target: Target, options: argparse.Namespace) -> tuple[Measured, int, float]:
    """Return how users were made, how many were ended, and the seconds that took."""
    with (
        started(single=options.single_process, options=("--allow-network", "127.0.0.1/32")) as (addresses, _),
    ):
        token = addresses.root_token or ""
        with Client(ClientSettings(address=addresses.api, token=Sensitive(token))) as client:
            _configure(client, target, options.iterations)
            for seconds in (_WARM_UP_SECONDS, options.seconds):
                load = Load(
                    base=addresses.api,
                    target=f"/v1/{_MOUNT}/creds/bench",
                    body="{}",
                    numbered=False,
                    connections=options.connections,
                    seconds=seconds,
                    token=token,
                )
                made = measure(load)
            return made, *_end(client, target)


async def _alone(url: str, seconds: float, iterations: int) -> float:
    """Return how many users a second PostgreSQL makes by itself, each in a transaction of its own."""
    secret = verifier("x" * 20, bytes(16), iterations)
    until = time.perf_counter() + seconds
    names: list[str] = []

    async def make() -> None:
        connection = await asyncpg.connect(url)
        while time.perf_counter() < until:
            name = f"alone-{len(names)}"
            names.append(name)
            create, grant = (
                text.replace("{{name}}", name)
                .replace("{{password}}", secret)
                .replace("{{expiration}}", "infinity")
                for text in _CREATION
            )
            # Two grants on one table at the same time would fail each other.
            await connection.execute(f"BEGIN; {create}; SELECT pg_advisory_xact_lock(1); {grant}; COMMIT")
        await connection.close()

    began = time.perf_counter()
    await asyncio.gather(*(make() for _ in range(_POOL)))
    rate = len(names) / (time.perf_counter() - began)
    connection = await asyncpg.connect(url)
    await connection.execute("; ".join(f'DROP OWNED BY "{name}"; DROP ROLE "{name}"' for name in names))
    await connection.close()
    return rate


@contextlib.contextmanager
def _target() -> Iterator[Target]:
    """Start a server, and let it be reached over TCP."""
    with tempfile.TemporaryDirectory(prefix="sh-target-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, name="target")
        thread.start()
        server = EmbeddedPostgres(folder)

        def run(work: Coroutine[Any, Any, T]) -> T:
            return asyncio.run_coroutine_threadsafe(work, loop).result()

        try:
            url = run(server.start())
            password = secrets.token_urlsafe(24)
            run(_prepare(url, password))
            socket = Path(parse_qs(urlsplit(url).query)["host"][0]) / ".s.PGSQL.5432"
            yield Target(url=url, port=run(_forward(socket)), password=password)
        finally:
            run(server.stop())
            server.remove()
            loop.call_soon_threadsafe(loop.stop)
            thread.join()


async def _prepare(url: str, password: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE TABLE things ()")
    await connection.execute(f"CREATE ROLE bench SUPERUSER LOGIN PASSWORD '{password}'")
    await connection.close()


async def _forward(socket: Path) -> int:
    """Pass on what comes to a port on loopback to a socket, and return the port."""

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs, ours = await asyncio.open_unix_connection(socket)
        await asyncio.gather(copy(reader, ours), copy(theirs, writer))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    return int(server.sockets[0].getsockname()[1])


def _configure(client: Client, target: Target, iterations: int) -> None:
    place = f"127.0.0.1:{target.port}{urlsplit(target.url).path}"
    client.write(
        f"{_MOUNT}/config/bench",
        {
            "plugin_name": "postgresql-database-plugin",
            "connection_url": f"postgresql://{{{{username}}}}:{{{{password}}}}@{place}?sslmode=disable",
            "username": "bench",
            "password": target.password,
            "allowed_roles": ["bench"],
            "max_open_connections": _POOL,
            "scram_iterations": iterations,
        },
    )
    role = {"db_name": "bench", "creation_statements": _CREATION, "default_ttl": "1h"}
    client.write(f"{_MOUNT}/roles/bench", role)


def _end(client: Client, target: Target) -> tuple[int, float]:
    """End every user; return how many there were, and the seconds until there were none."""
    time.sleep(_IN_FLIGHT_SECONDS)
    count, began = asyncio.run(_users(target.url)), time.perf_counter()
    client.write(f"sys/leases/revoke-prefix/{_MOUNT}/creds/bench")
    while asyncio.run(_users(target.url)):
        if time.perf_counter() - began > _END_SECONDS:
            raise RuntimeError("users are left at the target")
        time.sleep(0.01)
    return count, time.perf_counter() - began


async def _users(url: str) -> int:
    connection = await asyncpg.connect(url)
    try:
        return int(
            await connection.fetchval("SELECT count(*) FROM pg_roles WHERE starts_with(rolname, $1)", _PART)
        )
    finally:
        await connection.close()


def _table(alone: float, made: Measured, count: int, took: float) -> str:
    ratio = f"{made.rate / alone:.2f}"
    rows = (
        (
            "made",
            f"{made.requests:,}",
            f"{made.rate:,.0f}",
            f"{made.p50:.1f}",
            f"{made.p99:.1f}",
            f"{alone:,.0f}",
            ratio,
        ),
        ("ended", f"{count:,}", f"{count / took:,.0f}", "", "", "", ""),
    )
    columns = ("Users", "Number", "a second", "p50 ms", "p99 ms", "PostgreSQL alone", "Ratio")
    return "\n" + render({}, "table", [Table(columns=columns, rows=rows)])


def _json(alone: float, made: Measured, count: int, took: float, options: argparse.Namespace) -> str:
    told = {"seconds": options.seconds, "connections": options.connections, "iterations": options.iterations}
    ended = {"number": count, "seconds": took, "rate": count / took}
    results = {"made": asdict(made), "ended": ended, "alone": {"rate": alone}}
    return json.dumps(
        {"bench": "creds-postgresql", "load": generator(), **told, "results": results}, indent=2
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
