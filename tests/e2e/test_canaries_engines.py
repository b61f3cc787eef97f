"""What engines are told and make goes to targets and callers; afterwards it is looked for everywhere else."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.e2e.canaries import Canaries
from tests.e2e.development import Development
from tests.gateway import aws_target, redis_target
from tests.gateway.aws_target import READ, ROLE
from tests.gateway.database_target import TargetDatabase, target_database
from tests.gateway.databases import CREATION
from tests.http_transport import PlainTransport

pytestmark = pytest.mark.timeout(300)

_MOUNTS = {"database": "canaries/db", "aws": "canaries/aws"}
_FAILING = [CREATION[0], "SELECT '{{password}}'::integer"]


@dataclass
class Work:
    """Asks a cluster as its root, and remembers every secret."""

    client: httpx2.AsyncClient
    canaries: Canaries = field(default_factory=Canaries)

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """Send a request that must succeed, and return its answer."""
        answer = await self.client.request(method, path, json=body, headers=headers)
        assert answer.is_success, (path, answer.text)
        return answer.json() if answer.content else None

    async def creds(self, path: str, *names: str) -> Any:
        """Have credentials made twice, once wrapped, and remember what is secret in them."""
        await self.ask("POST", path, **{"X-Vault-Wrap-TTL": "1h"})
        wrapped = await self.ask("GET", path, **{"X-Vault-Wrap-TTL": "1h"})
        token = self.canaries.text("a wrapping token", wrapped["wrap_info"]["token"])
        made = await self.ask("GET", path)
        unwrapped = await self.ask("POST", "sys/wrapping/unwrap", **{"X-Vault-Token": token})
        for answer in (made, unwrapped):
            for name in names:
                self.canaries.text(f"{name} of {path}", answer["data"][name])
        return made


@pytest.fixture
async def database(postgres_url: str) -> AsyncIterator[TargetDatabase]:
    """A PostgreSQL target."""
    async with target_database(postgres_url) as made:
        await made.sql("CREATE TABLE things AS SELECT 1 AS one")
        yield made


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[redis_target.TargetRedis]:
    """A Redis target."""
    with redis_target.running(tmp_path) as made:
        yield made


@pytest.fixture
def aws() -> Iterator[aws_target.Target]:
    """An AWS."""
    with aws_target.running() as made:
        made.begin_anew()
        yield made


@pytest.fixture
async def work(
    development: Development,
    database: TargetDatabase,
    redis: redis_target.TargetRedis,
    aws: aws_target.Target,
) -> AsyncIterator[Work]:
    """The shared cluster with mounts of our own, which go with what is in them before their targets do."""
    client = httpx2.AsyncClient(
        base_url=f"{development.url}/v1/",
        headers={"X-Vault-Token": development.root_token},
        timeout=30.0,
        transport=PlainTransport(),
    )
    async with client:
        made = Work(client)
        for kind, path in _MOUNTS.items():
            await made.ask("POST", f"sys/mounts/{path}", {"type": kind})
        yield made
        for path in _MOUNTS.values():
            await made.ask("DELETE", f"sys/mounts/{path}")


async def of_databases(work: Work, database: TargetDatabase, redis: redis_target.TargetRedis) -> None:
    """Users of both kinds: made, renewed, ended, refused; passwords that are ours; those that people own."""
    mount, user = _MOUNTS["database"], f"{database.owner}_static"
    ours = work.canaries.value("our own password")
    await database.sql(f"CREATE ROLE {user} LOGIN")
    await database.sql(f"ALTER ROLE {database.owner} PASSWORD '{ours}'")
    await work.ask("POST", f"{mount}/config/pg", database.config(password=ours))
    work.canaries.text("the administrator's password of Redis", redis_target.CANARY)
    await work.ask("POST", f"{mount}/config/redis", redis.config())
    body = {"db_name": "pg", "creation_statements": CREATION, "default_ttl": "1h"}
    await work.ask("POST", f"{mount}/roles/pg", body)
    await work.ask("POST", f"{mount}/roles/failing", {**body, "creation_statements": _FAILING})
    await work.ask("POST", f"{mount}/roles/redis", {"db_name": "redis", "default_ttl": "1h"})
    refused = await work.client.get(f"{mount}/creds/failing")
    assert (refused.status_code, "SCRAM" in refused.text) == (400, False)
    for role in ("pg", "redis"):
        made = await work.creds(f"{mount}/creds/{role}", "password")
        await work.ask("PUT", "sys/leases/renew", {"lease_id": made["lease_id"], "increment": "2h"})
        await work.ask("PUT", "sys/leases/revoke", {"lease_id": made["lease_id"], "sync": True})
        await work.creds(f"{mount}/creds/{role}", "password")
    static = {"db_name": "pg", "username": user, "rotation_period": "1h"}
    await work.ask("POST", f"{mount}/static-roles/pg", static)
    for _ in range(2):
        told = await work.ask("GET", f"{mount}/static-creds/pg")
        work.canaries.text("a static role's password", told["data"]["password"])
        await work.ask("POST", f"{mount}/rotate-role/pg")
    wrong = work.canaries.value("a password that is wrong")
    answer = await work.client.post(f"{mount}/config/wrong", json=database.config(password=wrong))
    assert (answer.status_code, wrong in answer.text) == (400, False)
    await work.ask("POST", f"{mount}/rotate-root/pg")


async def of_aws(work: Work, aws: aws_target.Target) -> None:
    """Users of IAM and sessions: made and ended; a key of our own that is replaced."""
    mount = _MOUNTS["aws"]
    work.canaries.text("our own secret key", aws.secret_key)
    await work.ask("POST", f"{mount}/config/root", aws.config())
    user = {"credential_type": "iam_user", "policy_document": READ}
    await work.ask("POST", f"{mount}/roles/user", user)
    await work.ask("POST", f"{mount}/roles/session", {"credential_type": "assumed_role", "role_arns": [ROLE]})
    made = await work.creds(f"{mount}/creds/user", "secret_key")
    await work.ask("PUT", "sys/leases/revoke", {"lease_id": made["lease_id"], "sync": True})
    await work.creds(f"{mount}/creds/user", "secret_key")
    await work.creds(f"{mount}/creds/session", "secret_key", "session_token")
    await work.ask("POST", f"{mount}/config/rotate-root")


async def of_rotations(work: Work, database: TargetDatabase) -> None:
    """A password that takes turns, a webhook's key, and values that are made for a secret."""
    users = [f"{database.owner}_{name}" for name in ("a", "b")]
    for user in users:
        await database.sql(f"CREATE ROLE {user} LOGIN")
    two = {"rotator": "database-two-users", "options": {"users": ",".join(users)}}
    two["options"]["connection"] = f"{_MOUNTS['database']}/config/pg"
    key = work.canaries.value("a webhook's signing key") + secrets.token_hex(8)
    url = {"url": "https://127.0.0.1:9/", "signing_key": key}
    for name, config in (
        ("generated", {"rotator": "generated"}),
        ("two", two),
        ("hook", {"rotator": "webhook", "options": url}),
    ):
        await work.ask("POST", f"sys/rotation/config/secrets/canaries/{name}", config)
    for name, field_ in (("generated", "value"), ("two", "password")):
        for _ in range(2):
            run = await work.ask("POST", f"sys/rotation/run/secrets/canaries/{name}")
            await _ended(work, name, run["data"]["run"])
            told = await work.ask("GET", f"secrets/canaries/{name}")
            work.canaries.text(f"what {name} made", told["data"]["data"][field_])
    for name in ("generated", "two", "hook"):
        await work.ask("DELETE", f"sys/rotation/config/secrets/canaries/{name}")


async def _ended(work: Work, name: str, run: int) -> None:
    path = f"sys/rotation/history/secrets/canaries/{name}"
    async with asyncio.timeout(60):
        while True:
            runs = (await work.ask("GET", path))["data"]["runs"]
            if any(one["run"] == run for one in runs):
                assert runs[0]["outcome"] == "done", runs[0]
                return
            await asyncio.sleep(0.1)


async def test_no_secret_of_an_engine_is_found_where_it_must_not_be(
    development: Development,
    work: Work,
    database: TargetDatabase,
    redis: redis_target.TargetRedis,
    aws: aws_target.Target,
) -> None:
    """Neither rows and files of Core, logs and Ray's folders among them, nor its processes show one."""
    roles = [f"{database.owner}_{name}" for name in ("static", "a", "b")]
    try:
        await of_databases(work, database, redis)
        await of_aws(work, aws)
        await of_rotations(work, database)
        url = development.core.addresses().database_url
        found = await asyncio.to_thread(work.canaries.in_database, url)
        found += await asyncio.to_thread(work.canaries.in_files, *development.folders)
        found += await asyncio.to_thread(work.canaries.in_processes, development.pid)
        metrics = await work.client.get("sys/metrics")
        found += work.canaries.within("metrics", metrics.content)
    finally:
        for role in roles:
            await database.sql(f"DROP ROLE IF EXISTS {role}")
    assert not found, "\n".join(found)
