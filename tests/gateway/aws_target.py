"""AWS for tests: moto's server, which checks signatures and permissions, and whose data tests look at."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import boto3
import httpx2
from botocore.exceptions import ClientError
from moto.iam.models import iam_backends
from moto.server import ThreadedMotoServer

from tests.gateway.conftest import NOBODY

REGION = "eu-central-1"
ACCOUNT = "123456789012"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/deploy"
OTHER_ROLE = f"arn:aws:iam::{ACCOUNT}:role/audit"
MANAGED = f"arn:aws:iam::{ACCOUNT}:policy/reader"
EXTERNAL_ID = "known-to-both"
READ = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:Get*", "Resource": "*"}]}
_OURS = ["iam:*", "sts:AssumeRole", "sts:GetFederationToken"]


class Gathering:
    """Callers who wait in a method until so many are there, or nobody else has come for long."""

    def __init__(self, enough: int) -> None:
        self._enough = enough
        self._gathered = threading.Event()
        self._crowded = threading.Event()
        self._counting = threading.Lock()
        self._present = self.most = 0

    def join(self) -> None:
        """Be there for a while."""
        with self._counting:
            self._present += 1
            self.most = max(self.most, self._present)
            if self._present >= self._enough:
                self._gathered.set()
            if self._present > self._enough:
                self._crowded.set()
        # Far less than a client waits for an answer.
        self._gathered.wait(2.0)
        # For one too many: nothing else tells that nobody comes any more.
        self._crowded.wait(0.1)
        with self._counting:
            self._present -= 1


@dataclass
class Target:
    """A running service.

    Attributes:
        url: of every service in it.
        session: makes clients.
        access_key: of the user ``secrethub``, who may work at IAM and assume roles.
        secret_key: of that.
    """

    url: str
    session: boto3.session.Session = field(default_factory=boto3.session.Session, repr=False)
    access_key: str = ""
    secret_key: str = field(default="", repr=False)

    def config(self, **changes: Any) -> dict[str, Any]:
        """Return the body of ``config/root``."""
        return {
            "access_key": self.access_key,
            "secret_key": self.secret_key,
            "region": REGION,
            "iam_endpoint": self.url,
            "sts_endpoint": self.url,
            **changes,
        }

    def iam(self) -> Any:
        """Return a client with our own key."""
        return self.client("iam", self.access_key, self.secret_key)

    def client(self, service: str, access_key: str, secret_key: str, token: str | None = None) -> Any:
        """Return a client with some key."""
        return self.session.client(
            service,
            region_name=REGION,
            endpoint_url=self.url,
            aws_access_key_id=access_key,
            aws_secret_access_key=secret_key,
            aws_session_token=token,
        )

    def made(self) -> set[str]:
        """Return the users that are there beside ours."""
        return self.users() - {"secrethub"}

    def users(self) -> set[str]:
        """Return all users, without asking with any key."""
        return {user.name for user in self._backend.list_users("/", None, None)}

    def keys(self, user: str = "secrethub") -> set[str]:
        """Return the ids of a user's keys, without asking with any key."""
        return {key.access_key_id for key in self._backend.users[user].access_keys}

    @contextlib.contextmanager
    def losing_answers(self, method: str, *, done: bool = True, of: str = "") -> Iterator[None]:
        """Answer a method with an internal error, after or without doing it; ``of`` one user only."""
        backend = self._backend
        before = getattr(backend, method)

        def lost(*arguments: Any, **named: Any) -> Any:
            if of and of not in (*arguments, *named.values()):
                return before(*arguments, **named)
            if done:
                before(*arguments, **named)
            raise RuntimeError("the answer is lost")

        setattr(backend, method, lost)
        try:
            yield
        finally:
            delattr(backend, method)

    @contextlib.contextmanager
    def gathering(self, method: str, enough: int) -> Iterator[Gathering]:
        """Have the callers of a method gather in it, and count them."""
        backend, gathering = self._backend, Gathering(enough)
        before = getattr(backend, method)

        def wait(*arguments: Any, **named: Any) -> Any:
            gathering.join()
            return before(*arguments, **named)

        setattr(backend, method, wait)
        try:
            yield gathering
        finally:
            delattr(backend, method)

    @property
    def _backend(self) -> Any:
        return iam_backends[ACCOUNT]["aws"]

    def opens(self, credentials: dict[str, Any]) -> bool:
        """Tell whether AWS takes credentials."""
        names = (credentials["access_key"], credentials["secret_key"], credentials["security_token"])
        try:
            self.client("sts", *names).get_caller_identity()
        except ClientError:
            return False
        return True

    def begin_anew(self) -> None:
        """Forget everything; make ours, two roles, a policy and a group."""
        httpx2.post(f"{self.url}/moto-api/reset", verify=NOBODY).raise_for_status()
        # Until the counter is used up anybody may do anything, as the account's owner must at first.
        httpx2.post(f"{self.url}/moto-api/reset-auth", content=b"1000", verify=NOBODY).raise_for_status()
        iam = self.client("iam", "owner", "owner")
        iam.create_user(UserName="secrethub")
        statement = [{"Effect": "Allow", "Action": _OURS, "Resource": "*"}]
        document = json.dumps({"Version": "2012-10-17", "Statement": statement})
        iam.put_user_policy(UserName="secrethub", PolicyName="p", PolicyDocument=document)
        iam.create_policy(PolicyName="reader", PolicyDocument=json.dumps(READ))
        iam.create_group(GroupName="readers")
        user = f"arn:aws:iam::{ACCOUNT}:user/secrethub"
        trust = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"AWS": user}}
        asks = {"Condition": {"StringEquals": {"sts:ExternalId": EXTERNAL_ID}}}
        for name, statement in (("deploy", [trust]), ("audit", [{**trust, **asks}])):
            document = json.dumps({"Version": "2012-10-17", "Statement": statement})
            iam.create_role(RoleName=name, AssumeRolePolicyDocument=document)
        made = iam.create_access_key(UserName="secrethub")["AccessKey"]
        self.access_key, self.secret_key = made["AccessKeyId"], made["SecretAccessKey"]
        httpx2.post(f"{self.url}/moto-api/reset-auth", content=b"0", verify=NOBODY).raise_for_status()


@contextlib.contextmanager
def running() -> Iterator[Target]:
    """Run the service."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield Target(f"http://{host}:{port}")
    finally:
        server.stop()
