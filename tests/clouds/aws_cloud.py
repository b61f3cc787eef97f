"""AWS for tests: moto's server, which checks signatures and permissions."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import boto3
import httpx2
from moto.server import ThreadedMotoServer

from secrethub.node import KeyServiceSettings
from tests.clouds.cloud import Cloud

REGION = "eu-central-1"


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Cloud]:
    """Run it with one key and one user who may use it."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    httpx2.post(f"{url}/moto-api/reset").raise_for_status()
    # Until the counter is used up anybody may do anything, as the account's owner must at first.
    httpx2.post(f"{url}/moto-api/reset-auth", content=b"100").raise_for_status()
    owner = boto3.session.Session(
        aws_access_key_id="owner", aws_secret_access_key="owner", region_name=REGION
    )
    key = owner.client("kms", endpoint_url=url).create_key()["KeyMetadata"]
    iam = owner.client("iam", endpoint_url=url)
    iam.create_user(UserName="secrethub")
    statement = {"Effect": "Allow", "Action": ["kms:Encrypt", "kms:Decrypt"], "Resource": "*"}
    iam.put_user_policy(
        UserName="secrethub",
        PolicyName="wrap",
        PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [statement]}),
    )
    made = iam.create_access_key(UserName="secrethub")["AccessKey"]
    httpx2.post(f"{url}/moto-api/reset-auth", content=b"0").raise_for_status()
    credentials = folder / "aws"
    credentials.touch(0o600)
    _write(credentials, made["AccessKeyId"], made["SecretAccessKey"])

    def deny() -> None:
        _write(credentials, made["AccessKeyId"], "x" * 40)

    cloud = Cloud(
        settings=KeyServiceSettings(
            name="aws",
            kind="awskms",
            key=key["Arn"],
            region=REGION,
            endpoint=url,
            credentials_file=str(credentials),
        ),
        stop=server.stop,
        deny=deny,
    )
    try:
        yield cloud
    finally:
        cloud.close()
        httpx2_reset()


def httpx2_reset() -> None:
    """Let moto, whose accounts outlive its server, begin anew."""
    from moto.core.models import DEFAULT_ACCOUNT_ID
    from moto.moto_api._internal import moto_api_backend

    assert DEFAULT_ACCOUNT_ID
    moto_api_backend.reset()


def _write(path: Path, key_id: str, secret: str) -> None:
    path.write_text(f"[default]\naws_access_key_id = {key_id}\naws_secret_access_key = {secret}\n")
