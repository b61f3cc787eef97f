"""Calls to AWS with the key of a mount: in threads, some at a time, each within a bounded time.

A call that may have been carried out although there was no answer raises TimeoutError, so that whoever undoes
it waits until it cannot happen any more. Errors have AWS's code, never its text, which may repeat what was
sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

from secrethub.engines.aws.root import Root, used_root
from secrethub.engines.outbound import WebTarget, allowed_addresses, parse_url
from secrethub.engines.runtime import Core
from secrethub.engines.target_health import Busy, Check, Health
from secrethub.errors import InvalidRequest, Unavailable
from secrethub.node import NodeSettings
from secrethub.sensitive import Sensitive

AT_ONCE = 8
"""Calls of one mount, of each process."""
MOST_RETRIES = 2
"""With the times below a call ends long before an intent is undone, 40 seconds after it could begin."""

_CONNECT_SECONDS = 3
_ANSWER_SECONDS = 5
_STATE = "aws"
_THROTTLED = frozenset(
    {"Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequestsException", "SlowDown"}
)
_SERVER_ERROR = 500


class Refused(InvalidRequest):
    """AWS refuses a call; nothing has happened.

    Attributes:
        aws_code: what AWS calls the reason.
    """

    def __init__(self, message: str = "", aws_code: str = "") -> None:
        super().__init__(message, aws_code)
        self.aws_code = aws_code


class Account:
    """AWS as one access key sees it."""

    def __init__(
        self,
        settings: NodeSettings,
        root: Root,
        secret: Sensitive[str],
        pool: ThreadPoolExecutor,
        health: Health,
    ) -> None:
        """Prepare; nothing is connected to yet.

        Args:
            settings: of this node: where it may connect to.
            root: who we are, and where the services are.
            secret: proves it.
            pool: threads.
            health: what is known of whether AWS answers this mount.
        """
        self._settings = settings
        self._root = root
        self._secret = secret
        self._pool = pool
        self.health = health
        self._clients: dict[str, tuple[Any, WebTarget]] = {}

    def __repr__(self) -> str:
        return f"Account({self._root.access_key!r})"

    async def call(self, service: str, method: str, **arguments: Any) -> dict[str, Any]:
        """Return the answer of a service, unless AWS is left alone now.

        Args:
            service: ``iam`` or ``sts``.
            method: as botocore calls it, e.g. ``create_user``.
            arguments: of it.

        Raises:
            Refused: AWS refuses, or it must not be connected to.
            Unavailable: it cannot be reached, or has too much to do; nothing has happened.
            TimeoutError: it did not answer, and may have done what it was asked for.
        """
        async with self.health.used():
            client, target = await self._client(service)
            try:
                await allowed_addresses(
                    self._settings, target.host, target.port, secure=target.scheme == "https"
                )
            except OSError as exc:
                raise Unavailable(f"the name {target.host} is not known") from exc
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(
                self._pool,
                lambda: _called(f"{service}:{method}", lambda: getattr(client, method)(**arguments)),
            )

    async def who(self) -> dict[str, Any]:
        """Return who AWS says that we are, which takes no permission there. Raises as :meth:`call`."""
        return await self.call("sts", "get_caller_identity")

    async def check(self, *, at_once: bool = False) -> Check:
        """Find out whether AWS answers and takes our key; ``at_once`` also while it is left alone."""
        return await self.health.check(self.who, at_once=at_once)

    async def _client(self, service: str) -> tuple[Any, WebTarget]:
        found = self._clients.get(service)
        if found is None:
            # Reads descriptions of the service from files.
            found = await asyncio.get_running_loop().run_in_executor(self._pool, self._made, service)
            self._clients[service] = found
        return found

    def _made(self, service: str) -> tuple[Any, WebTarget]:
        from botocore.config import Config

        from secrethub.engines.boto import client

        root = self._root
        retries = MOST_RETRIES if root.max_retries < 0 else root.max_retries
        made = client(
            service,
            region=root.region,
            endpoint=root.iam_endpoint if service == "iam" else root.sts_endpoint,
            access_key=root.access_key,
            secret_key=self._secret,
            config=Config(
                connect_timeout=_CONNECT_SECONDS,
                read_timeout=_ANSWER_SECONDS,
                retries={"total_max_attempts": 1 + retries, "mode": "standard"},
                max_pool_connections=AT_ONCE,
            ),
        )
        return made, parse_url(made.meta.endpoint_url)


class Accounts:
    """The accounts of one process, by the UUIDs of their mounts."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._open: dict[str, tuple[int, Account]] = {}
        self._pools: dict[str, ThreadPoolExecutor] = {}
        self._health: dict[str, Health] = {}
        core.keys.on_wipe(self.close)

    def close(self) -> None:
        """Let go of every key; calls under way come to their end."""
        self._open.clear()

    def of(self, mount: str, root: Root) -> Account:
        """Return the account of a mount as it is configured."""
        found = self._open.get(mount)
        if found is not None and found[0] == root.revision:
            return found[1]
        account = self.with_key(mount, root, root.secret_key(self._core.keyring()))
        self._open[mount] = (root.revision, account)
        return account

    def with_key(self, mount: str, root: Root, secret: Sensitive[str]) -> Account:
        """Return an account that is not kept."""
        pool = self._pools.get(mount)
        if pool is None:
            pool = self._pools[mount] = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="aws")
        return Account(self._core.settings, root, secret, pool, self.health_of(mount))

    def health_of(self, mount: str) -> Health:
        """Return what is known of whether AWS answers a mount."""
        found = self._health.get(mount)
        if found is None:
            clock = self._core.clock
            # As if it had been asked just now: whoever writes a configuration does not ask AWS.
            found = self._health[mount] = Health("AWS", clock, checked=clock.monotonic())
        return found

    def keep_only(self, mounts: Collection[str]) -> None:
        """Forget every mount but these."""
        for mount in (self._open.keys() | self._health.keys() | self._pools.keys()) - set(mounts):
            self._open.pop(mount, None)
            self._health.pop(mount, None)
            pool = self._pools.pop(mount, None)
            if pool is not None:
                pool.shutdown(wait=False)


def accounts_of(core: Core) -> Accounts:
    """Return the accounts of this process."""
    found = core.engine_state.get(_STATE)
    if found is None:
        found = core.engine_state[_STATE] = Accounts(core)
    assert isinstance(found, Accounts)
    return found


async def account_of(core: Core, mount: str) -> Account:
    """Return the account of the mount with a UUID.

    Raises:
        InvalidRequest: it is not configured.
        IntegrityFailure: its row is not authentic.
    """
    return accounts_of(core).of(mount, await used_root(core, mount))


async def check_endpoint(settings: NodeSettings, endpoint: str) -> None:
    """Check that a service may be where somebody says.

    Raises:
        InvalidRequest: it may not, or it is no URL.
        Unavailable: its name is not known now.
    """
    target = parse_url(endpoint)
    if target.path != "/" or urlsplit(endpoint).path not in {"", "/"}:
        raise InvalidRequest("an endpoint is a URL without a path")
    try:
        await allowed_addresses(settings, target.host, target.port, secure=target.scheme == "https")
    except OSError as exc:
        raise Unavailable(f"the name {target.host} is not known") from exc


def _called(what: str, call: Callable[[], Any]) -> dict[str, Any]:
    """Return the answer of a call, in a thread. Raises as :meth:`Account.call`."""
    import botocore.exceptions as failures
    from botocore.parsers import ResponseParserError

    try:
        answer: dict[str, Any] = call()
    except failures.ClientError as exc:
        code = str(exc.response.get("Error", {}).get("Code", ""))
        status = exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if code in _THROTTLED:
            raise Busy(f"AWS is asked too often: {what}: {code}") from exc
        if status >= _SERVER_ERROR:
            raise TimeoutError(f"{what}: {code}") from exc
        raise Refused(f"AWS refuses {what}: {code}", code) from exc
    except failures.ParamValidationError as exc:
        raise Refused(f"AWS would refuse {what}: a value cannot be", "ParamValidation") from exc
    except (failures.EndpointConnectionError, failures.ConnectTimeoutError, failures.SSLError) as exc:
        raise Unavailable(f"AWS cannot be reached for {what}: {type(exc).__name__}") from exc
    except ResponseParserError:
        # Its text has the answer in it.
        raise TimeoutError(f"{what}: no answer of AWS's") from None
    except failures.BotoCoreError as exc:
        raise TimeoutError(f"{what}: {type(exc).__name__}") from exc
    return answer
