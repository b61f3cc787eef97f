"""``./dev bench leases [--leases N] [--json]``: a million live leases, and what they cost.

On a PostgreSQL of its own, with synced commits: until a fresh LeaseManager has ended its first lease, and its
memory, beside the same with 1,000 leases; renewals, as whole operations without HTTP and as what the database
is asked for; the end of leases of an engine that does nothing. All in one process, on the event loop that
servers have, on the machine that also runs PostgreSQL.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import uvloop

from actors.lease_manager import LeaseManager
from actors.workplace import LentPlace
from cluster.postgres import EmbeddedPostgres
from secrethub.clock import SystemClock
from secrethub.crypto.keyring import Keyring
from secrethub.engines.engine import Fence, Operation
from secrethub.engines.kinds import engines
from secrethub.engines.lease_ending import end_due
from secrethub.engines.leasing import Held
from secrethub.engines.mounts import Mount
from secrethub.engines.runtime import Core
from secrethub.ids import base62, new_uuid
from secrethub.leases.lease import Lease
from secrethub.node import NodeSettings
from secrethub.operations import seal_lifecycle
from secrethub.operations.call import Call, Token
from secrethub.operations.perform import perform
from secrethub.seal.slots import ShamirSlot, open_slot
from secrethub.sensitive import Sensitive
from secrethub.storage import leases
from secrethub.storage.database import Database
from secrethub.storage.migrate import upgrade

AIM = 5000
_FEW = 1000
_WORK = 20_000
_AT_ONCE = 256
_OWNERS = 1000
_CHUNK = 20_000
_MOUNT = "secrets/dynamic/postgresql/"
_HOUR = 3_600_000_000
_DUE = "SELECT EXISTS (SELECT FROM leases WHERE due_at < now() + interval '2 minutes')"
"""Claimed and not ended yet, too."""


class MemoryEngine:
    """An engine whose target is nothing at all; it takes the place of ``database``."""

    kind = "database"

    def operations(self) -> tuple[Operation, ...]:
        """It offers nothing: leases are put there by the bench."""
        return ()

    def native_prefix(self, mount: str) -> str:
        """Native rules write the path as it is."""
        return mount

    async def revoke(
        self, _core: Core, _mount: Mount, _target: str, _held: Sequence[Held]
    ) -> Mapping[str, str]:
        """End leases."""
        return {}

    undo = revoke

    async def extend(self, _core: Core, _mount: Mount, _held: Held, _until: datetime) -> None:
        """Let a lease live."""


def core_of(url: str, folder: Path) -> Core:
    """Return a process without doors."""
    settings = NodeSettings(
        node="bench",
        run_dir=str(folder),
        state_dir=str(folder),
        database_url=url,
        cluster_key_file=str(folder / "none"),
        http=None,
        tls=None,
        agents=None,
        serve=None,
        metrics=None,
        agent_urls=(),
    )
    return Core(
        settings=settings,
        clock=SystemClock(),
        seal=None,  # type: ignore[arg-type]  # nobody asks the seal here
        engines={**engines(), "database": MemoryEngine()},
        process="bench",
    )


@contextlib.asynccontextmanager
async def unsealed(url: str, folder: Path, keys: Mapping[str, Any]) -> AsyncIterator[Core]:
    """Run a process with its keys."""
    core = core_of(url, folder)
    core.start()
    try:
        keyring = Keyring.load(bytes.fromhex(keys["keyring"]))
        await core.unseal(keyring, keys["epoch"], keys["cluster"])
        yield core
    finally:
        await core.stop()


async def initialised(url: str) -> dict[str, Any]:
    """Make the cluster, and return what opens it."""
    await upgrade(url)
    database = Database(url, size=2)
    try:
        made = await seal_lifecycle.initialise(database, 1, 1, datetime.now(UTC))
        [slot] = await seal_lifecycle.load_slots(database)
        assert isinstance(slot, ShamirSlot)
        root = open_slot(slot, made.shares)
        epoch = await seal_lifecycle.commit_unsealed(database, root, bytes(32))
        keyring = await seal_lifecycle.open_keyring(database, root)
    finally:
        await database.close()
    return {
        "keyring": keyring.export().hex(),
        "epoch": epoch,
        "cluster": made.cluster_id,
        "root": made.root_token,
    }


def rows_of(keyring: Keyring, mount: Mount, count: int, now: int) -> Iterator[tuple[Any, ...]]:
    """Return rows of live leases that end in an hour."""
    until = datetime.fromtimestamp((now + _HOUR) / 1_000_000, UTC)
    owners = [new_uuid() for _ in range(_OWNERS)]
    for number in range(count):
        owner = owners[number % _OWNERS]
        identifier = f"{mount.path}creds/app/{base62(24)}"
        lease = Lease(
            id=identifier,
            revision=2,
            state="live",
            mount=mount.uuid,
            role="app",
            target="one",
            owner=owner,
            owner_name="bench",
            lineage=(owner,),
            issued_at=now,
            expires_at=now + _HOUR,
            max_expires_at=now + 24 * _HOUR,
            renewable=True,
            sealed=leases.sealed_data(keyring, identifier, "live", {"username": identifier[-24:]}),
        )
        yield (*leases.values(keyring, lease), until)


async def fill(core: Core, url: str, count: int) -> None:
    """Copy leases into the database."""
    [mount] = [mount for mount in await core.mounts.load() if mount.path == _MOUNT]
    connection = await asyncpg.connect(url)
    try:
        now = await connection.fetchval(f"SELECT {leases.NOW}")
        columns = [name.strip() for name in f"{leases.COLUMNS}, due_at".split(",")]
        rows = rows_of(core.keyring(), mount, count, now)
        left = count
        while left:
            chunk = [next(rows) for _ in range(min(_CHUNK, left))]
            await connection.copy_records_to_table("leases", records=chunk, columns=columns)
            left -= len(chunk)
            await core.data_keys.count(core.keyring())
        await connection.execute("VACUUM ANALYZE leases")
    finally:
        await connection.close()


async def manager(url: str, folder: Path, keys: Mapping[str, Any]) -> dict[str, float]:
    """In a process of its own: until LeaseManager has ended what is due, and its memory then."""
    began = time.perf_counter()
    place = LentPlace()
    async with unsealed(url, folder, keys) as core:
        life = asyncio.create_task(LeaseManager(node="bench", workplace=place).hold())
        await place.lend(core)
        connection = await asyncpg.connect(url)
        try:
            due = True
            while due:
                await asyncio.sleep(0.005)
                due = await connection.fetchval(_DUE)
        finally:
            await connection.close()
        took = time.perf_counter() - began
        life.cancel()
        await asyncio.wait({life})
    status = Path("/proc/self/status").read_text()
    resident = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return {"seconds": took, "mib": int(resident.split()[1]) / 1024}


async def fresh_manager(url: str, keys: Mapping[str, Any]) -> dict[str, float]:
    """Let one lease be due and start a process that ends it."""
    await _ask(url, "UPDATE leases SET due_at = now() WHERE id = (SELECT id FROM leases LIMIT 1)")
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bench.leases",
        "--manager",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await child.communicate(json.dumps({"url": url, **keys}).encode())
    if child.returncode:
        raise RuntimeError("the manager failed")
    return dict(json.loads(said))


async def renewals(core: Core, url: str, root: str) -> dict[str, float]:
    """Renew leases, many at once: as operations, and as what the database is asked for."""
    rows = await _ask(url, f"SELECT id FROM leases ORDER BY id LIMIT {2 * _WORK}")
    identifiers = [row["id"] for row in rows]
    fence = Fence(generation=core.caches.generation, seal_epoch=core.caches.seal_epoch, written=[])

    async def whole(identifier: str) -> None:
        body = msgspec.json.encode({"lease_id": identifier, "increment": 7200})
        call = Call(
            method="write",
            path="sys/leases/renew",
            body=body,
            credential=Token(secret=Sensitive(root)),
            client_address="127.0.0.1",
            door="tls",
            request_id=new_uuid(),
        )
        answer = await perform(core, call)
        assert answer.lease_duration == 7200, answer

    found = [await core.lookups.find(core.keyring(), one) for one in identifiers[_WORK:]]
    held = [one for one in found if one is not None]

    async def alone(one: tuple[Lease, int]) -> None:
        until = one[1] + 2 * _HOUR
        assert await core.renewals.renew(core.keyring(), fence, one[0], now=one[1], until=until)

    return {
        "operations_per_second": await _rate(whole, identifiers[:_WORK]),
        "renewals_per_second": await _rate(alone, held),
    }


async def expiry(core: Core, url: str) -> float:
    """Let leases be due, and return how many a second are ended."""
    await _ask(
        url, f"UPDATE leases SET due_at = now() WHERE id IN (SELECT id FROM leases ORDER BY id LIMIT {_WORK})"
    )
    began, ended = time.perf_counter(), 0
    while ended < _WORK:
        ended += await end_due(core)
    return ended / (time.perf_counter() - began)


async def _rate(work: Any, things: Sequence[Any]) -> float:
    waiting = iter(things)

    async def lane() -> None:
        for one in waiting:
            await work(one)

    began = time.perf_counter()
    await asyncio.gather(*(lane() for _ in range(_AT_ONCE)))
    return len(things) / (time.perf_counter() - began)


async def _ask(url: str, statement: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(url)
    try:
        return list(await connection.fetch(statement))
    finally:
        await connection.close()


async def measure(count: int) -> dict[str, float]:
    """Measure everything."""
    # PostgreSQL's own user passes through here.
    folder = Path(tempfile.mkdtemp(prefix="secrethub-bench-"))
    folder.chmod(0o711)
    server = EmbeddedPostgres(folder)
    try:
        url = await server.start()
        keys = await initialised(url)
        async with unsealed(url, folder, keys) as core:
            await fill(core, url, _FEW)
            few = await fresh_manager(url, keys)
            await fill(core, url, count - _FEW)
            many = await fresh_manager(url, keys)
            began = time.perf_counter()
            metric = await _ask(url, "SELECT sum(leases) AS leases FROM lease_counts")
            told = time.perf_counter() - began
            assert metric[0]["leases"] == count - 2
            renewed = await renewals(core, url, keys["root"])
            ended = await expiry(core, url)
    finally:
        await server.stop()
        server.remove()
        shutil.rmtree(folder, ignore_errors=True)
    return {
        "leases": count,
        "start_few_s": few["seconds"],
        "start_many_s": many["seconds"],
        "memory_few_mib": few["mib"],
        "memory_many_mib": many["mib"],
        "count_s": told,
        **renewed,
        "ended_per_second": ended,
        "aim": AIM,
    }


def main(argv: Sequence[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="./dev bench leases")
    parser.add_argument("--leases", type=int, default=1_000_000, metavar="N", help="live leases (1,000,000)")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    parser.add_argument("--manager", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.manager:
        keys = json.loads(sys.stdin.read())
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(uvloop.run(manager(keys["url"], Path(folder), keys))))
        return 0
    found = uvloop.run(measure(max(options.leases, 2 * _WORK + _FEW)))
    if options.json:
        print(json.dumps({"bench": "leases", **{key: round(value, 4) for key, value in found.items()}}))
        return 0
    for label, key in (
        ("live leases", "leases"),
        (f"LeaseManager's start with {_FEW:,}, until it ended one, s", "start_few_s"),
        ("  with all of them, s", "start_many_s"),
        (f"its memory at most with {_FEW:,}, MiB", "memory_few_mib"),
        ("  with all of them, MiB", "memory_many_mib"),
        ("how many there are, s", "count_s"),
        ("renewals a second, whole operations without HTTP", "operations_per_second"),
        ("renewals a second in the database", "renewals_per_second"),
        ("ends a second", "ended_per_second"),
    ):
        print(f"{label:<56} {found[key]:>14,.2f}")
    print(f"aim: {AIM:,} renewals and {AIM:,} ends a second")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
