"""A Redis server for tests, with an administrator of its own and a file of access control lists."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.gateway.conftest import free_port

CANARY = "canary-of-a-redis"
"""The administrator's password; nowhere to be seen."""


@dataclass
class TargetRedis:
    """A server.

    Attributes:
        folder: of its files.
        port: on loopback.
        options: of its command line, beside the usual.
    """

    folder: Path
    port: int
    options: tuple[str, ...]
    process: subprocess.Popen[bytes] | None = None

    def config(self, **more: Any) -> dict[str, Any]:
        """Return the body of a request that configures it."""
        return {
            "plugin_name": "redis-database-plugin",
            "host": "127.0.0.1",
            "port": self.port,
            "tls": False,
            "username": "secrethub",
            "password": CANARY,
            "allowed_roles": ["*"],
            **more,
        }

    def client(self, user: str = "secrethub", password: str = CANARY) -> redis.Redis:
        """Return a client of a user."""
        return redis.Redis(
            port=self.port, username=user, password=password, decode_responses=True, protocol=2, retry=None
        )

    def opens(self, user: str, password: str) -> bool:
        """Tell whether a user is let in."""
        try:
            self.client(user, password).execute_command("AUTH", user, password)
        except redis.AuthenticationError:
            return False
        return True

    def made(self) -> set[str]:
        """Return the users that were made here."""
        return set(self.client().acl_users()) - {"default", "secrethub", "app"}

    def start(self) -> None:
        """Begin to answer."""
        command = ["redis-server", *self.options, "--port", str(self.port), "--bind", "127.0.0.1"]
        self.process = subprocess.Popen(
            [*command, "--dir", str(self.folder), "--save", ""], stdout=subprocess.DEVNULL
        )
        for _ in range(200):
            with contextlib.suppress(redis.ConnectionError):
                self.client().acl_users()
                return
            time.sleep(0.02)
        raise AssertionError("Redis does not answer")

    def stop(self) -> None:
        """Die."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def running(
    folder: Path, *more: str, aclfile: bool = True, configuration: bool = False
) -> Iterator[TargetRedis]:
    """Run a server with ``more`` options, whose users are in a file of their own, or of its configuration.

    Args:
        folder: of its files.
        more: options.
        aclfile: its users have a file; else it has none at all.
        configuration: unless it has a configuration file, which then has them.
    """
    if shutil.which("redis-server") is None:
        pytest.skip("there is no redis-server")
    # What the documentation says that ours needs, and no more.
    users = (
        f"user secrethub on >{CANARY} resetkeys -@all +acl +config|get +config|rewrite +info",
        "user app on >first ~* +@read",
        "user default off",
    )
    options = more
    if aclfile:
        (folder / "users.acl").write_text("\n".join(users) + "\n")
        options += ("--aclfile", str(folder / "users.acl"))
    elif configuration:
        (folder / "redis.conf").write_text("\n".join(users) + "\n")
        options = (str(folder / "redis.conf"), *more)
    else:
        options += tuple(word for user in users for word in ("--user", *user.split()[1:]))
    target = TargetRedis(folder, free_port(), options)
    target.start()
    try:
        yield target
    finally:
        target.stop()
