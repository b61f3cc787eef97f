"""The archive in S3: moto's server, which checks signatures and permissions."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import boto3
import httpx2
import msgspec
import pytest
from moto.server import ThreadedMotoServer

from tests.gateway.archives import old_entries, run
from tests.gateway.behind import ledger_is_good, sql
from tests.gateway.conftest import NOBODY, Node, node_settings, running
from tests.gateway.kv import ok

REGION = "eu-central-1"
ALLOWED = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": ["s3:PutObject", "s3:GetObject"], "Resource": "*"}],
}


class Cloud:
    """A bucket, and the key of a user who may write and read in it."""

    def __init__(self, url: str, key: dict[str, str]) -> None:
        self.url = url
        self.key_id = key["AccessKeyId"]
        self.secret = key["SecretAccessKey"]

    def config(self, **changes: str) -> dict[str, Any]:
        """A configuration that works."""
        return {
            "type": "s3",
            "retention": "1s",
            "bucket": "ledger",
            "prefix": "prod/",
            "region": REGION,
            "endpoint": self.url,
            "access_key_id": self.key_id,
            "secret_access_key": self.secret,
            **changes,
        }


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    """A running service with signatures checked, and credentials of somebody else lying around."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        url = f"http://{host}:{port}"
        httpx2.post(f"{url}/moto-api/reset", verify=NOBODY).raise_for_status()
        httpx2.post(f"{url}/moto-api/reset-auth", content=b"100", verify=NOBODY).raise_for_status()
        session = boto3.session.Session(
            aws_access_key_id="setup", aws_secret_access_key="setup", region_name=REGION
        )
        session.client("s3", endpoint_url=url).create_bucket(
            Bucket="ledger", CreateBucketConfiguration={"LocationConstraint": REGION}
        )
        iam = session.client("iam", endpoint_url=url)
        keys = {}
        for name, policy in (("archive", ALLOWED), ("ambient", ALLOWED), ("nobody", None)):
            iam.create_user(UserName=name)
            if policy is not None:
                iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=json.dumps(policy))
            keys[name] = iam.create_access_key(UserName=name)["AccessKey"]
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", keys["ambient"]["AccessKeyId"])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", keys["ambient"]["SecretAccessKey"])
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
        monkeypatch.setenv("AWS_PROFILE", "none")
        httpx2.post(f"{url}/moto-api/reset-auth", content=b"0", verify=NOBODY).raise_for_status()
        yield Cloud(url, keys["archive"])
    finally:
        httpx2.post(f"{url}/moto-api/reset-auth", content=b"1000000000", verify=NOBODY).raise_for_status()
        server.stop()


@contextlib.asynccontextmanager
async def cluster(database_url: str, folder: Path, name: str = "n1") -> AsyncIterator[Node]:
    """A cluster of one node that may connect to the service."""
    settings = msgspec.structs.replace(
        node_settings(folder, database_url, name), outbound_networks=("127.0.0.0/8",)
    )
    async with running(settings) as one:
        await one.initialise()
        await one.unseal()
        yield one


@pytest.fixture
async def node(database_url: str, tmp_path: Path, cloud: Cloud) -> AsyncIterator[Node]:
    """A node that may connect to the service."""
    async with cluster(database_url, tmp_path) as one:
        yield one


def objects(cloud: Cloud) -> dict[str, bytes]:
    """Return what is in the bucket, asked for without a signature inside the server's process."""
    from moto.s3.models import s3_backends

    bucket = s3_backends["123456789012"]["aws"].buckets["ledger"]
    return {name: key.value for name, key in bucket.keys.items()}


async def test_segments_in_s3(node: Node, cloud: Cloud) -> None:
    """Segments are put with the configured key, read back, and verify; the secret is nowhere in clear."""
    await ok(node, "PUT", "sys/audit/archive", cloud.config())
    await old_entries(node, 20)
    assert (await run(node))["segments"] == [1]
    names = sorted(objects(cloud))
    assert [name[:14] for name in names] == ["prod/00000001-"] * 2
    assert [name.partition(".")[2] for name in names] == ["jsonl.gz", "manifest.json"]
    assert (await ok(node, "POST", "sys/audit/archive/verify", {}))["ok"]
    await ledger_is_good(node)
    shown = await ok(node, "GET", "sys/audit/archive")
    assert cloud.secret not in json.dumps(shown)
    assert shown["access_key_id"] == cloud.key_id
    for table in ("audit_settings", "audit_entries", "audit_segments", "changes"):
        found = await sql(node.settings.database_url, f"SELECT * FROM {table}")
        assert cloud.secret not in str([dict(row) for row in found])


async def test_only_the_configured_credentials(node: Node, cloud: Cloud) -> None:
    """With a wrong secret nothing is archived, although the environment has credentials that would do."""
    await ok(node, "PUT", "sys/audit/archive", cloud.config(secret_access_key="wrong"))
    await old_entries(node, 5)
    answer = await node.call("POST", "sys/audit/archive/run", json={})
    assert answer.status_code == 503
    assert cloud.secret not in answer.text
    assert objects(cloud) == {}
    await ledger_is_good(node)
    assert (await ok(node, "GET", "sys/audit/archive"))["status"]["unfinished"]
    await ok(node, "PUT", "sys/audit/archive", cloud.config())
    assert (await run(node))["segments"][0] == 1


async def test_an_object_that_is_not_what_was_put(node: Node, cloud: Cloud) -> None:
    """An object that somebody replaced is named."""
    from moto.s3.models import s3_backends

    await ok(node, "PUT", "sys/audit/archive", cloud.config())
    await old_entries(node, 5)
    assert (await run(node))["segments"] == [1]
    name = next(name for name in objects(cloud) if name.endswith(".gz"))
    s3_backends["123456789012"]["aws"].put_object("ledger", name, b"x" * len(objects(cloud)[name]))
    verdict = await ok(node, "POST", "sys/audit/archive/verify", {})
    assert verdict["first_bad"] == {"segment": 1, "reason": "its file was changed"}


async def test_a_bucket_that_is_not_there(node: Node, cloud: Cloud) -> None:
    """When the bucket is missing the answer says so, without the library's own words, and nothing is lost."""
    await ok(node, "PUT", "sys/audit/archive", cloud.config(bucket="no-such-bucket"))
    await old_entries(node, 5)
    answer = await node.call("POST", "sys/audit/archive/run", json={})
    assert answer.status_code == 503
    await ledger_is_good(node)
    kept = await sql(
        node.settings.database_url, "SELECT 1 FROM audit_entries WHERE path LIKE 'secret/data/old%'"
    )
    assert len(kept) == 5


async def test_two_clusters_and_one_prefix(
    node: Node, shared_database_url: str, cloud: Cloud, tmp_path: Path
) -> None:
    """Neither overwrites an object of the other's, though the numbers are the same; each verifies its own."""
    async with cluster(shared_database_url, tmp_path, "n2") as other:
        made: list[dict[str, bytes]] = []
        for one in (node, other, node, other):
            await ok(one, "PUT", "sys/audit/archive", cloud.config())
            before = objects(cloud)
            await old_entries(one, 5)
            assert len((await run(one))["segments"]) == 1
            after = objects(cloud)
            assert before.items() <= after.items()
            made.append({name: after[name] for name in after.keys() - before.keys()})
        numbers = [{name[:13] for name in names} for names in made]
        assert numbers == [{f"prod/0000000{number}"} for number in (1, 1, 2, 2)]
        assert [len(names) for names in made] == [2] * 4
        for one in (node, other):
            assert (await ok(one, "POST", "sys/audit/archive/verify", {}))["ok"]
            await ledger_is_good(one, state=True)
        assert objects(cloud) == made[0] | made[1] | made[2] | made[3]
