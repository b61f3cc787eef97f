"""Unseal, and what tells the state: seal-status, health, leader."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

import msgspec

import secrethub
from secrethub.engines.answers import Nothing
from secrethub.engines.engine import Answer, Context, Hidden, Operation
from secrethub.engines.runtime import Core, SealStatus
from secrethub.engines.shared import Shared
from secrethub.engines.system.seal_answers import HealthAnswer, LeaderAnswer, SealStatusAnswer
from secrethub.engines.system.seal_gate import checks, origin_of
from secrethub.errors import (
    InvalidRequest,
    NotInitialised,
    Unavailable,
)
from secrethub.seal.shares import decode_share

COMPATIBLE = "1.16.3"
"""The version of Vault whose protocol is spoken; clients parse it."""

_SILENT_SECONDS = 5.0
_OPENING_SECONDS = 8.0
_STATUS_DISTANCE = 0.02
_CODES = ("activecode", "sealedcode", "uninitcode", "standbycode", "standbyok")
"""The last two mean nothing here: every node is active."""


class UnsealRequest(Hidden, msgspec.Struct, frozen=True):
    """One share in hexadecimal or base64, or ``reset``."""

    key: str = ""
    reset: bool = False
    migrate: bool = False


def seal_operations() -> tuple[Operation, ...]:
    """Return the seal's operations."""
    return (
        Operation(
            name="sys.health",
            method="read",
            pattern="health",
            handler=health,
            response=HealthAnswer,
            capability="read",
            public=True,
            audited=False,
            query=_CODES,
            statuses=(429, 501, 503),
            summary="Tell whether this node can answer, by statuses that the query may choose.",
        ),
        Operation(
            name="sys.seal-status",
            method="read",
            pattern="seal-status",
            handler=seal_status,
            response=SealStatusAnswer,
            capability="read",
            public=True,
            audited=False,
            summary="Tell the seal's state.",
        ),
        Operation(
            name="sys.leader",
            method="read",
            pattern="leader",
            handler=leader,
            response=LeaderAnswer,
            capability="read",
            public=True,
            audited=False,
            summary="Tell that every node answers.",
        ),
        Operation(
            name="sys.step-down",
            method="write",
            pattern="step-down",
            handler=step_down,
            response=Nothing,
            capability="update",
            sudo=True,
            wraps=False,
            summary="Give up leading the cluster; no node leads it, so nothing is given up.",
        ),
        Operation(
            name="sys.unseal",
            method="write",
            pattern="unseal",
            handler=unseal,
            response=SealStatusAnswer,
            capability="update",
            request=UnsealRequest,
            changes=True,
            public=True,
            keyless=True,
            summary="Give an unseal share.",
        ),
    )


def _status_body(context: Context, status: SealStatus) -> dict[str, Any]:
    sealed = status.sealed or not context.core.unsealed
    return {
        "type": status.kind,
        "initialized": status.initialised,
        "sealed": sealed,
        "t": status.threshold,
        "n": status.shares,
        "progress": status.progress if sealed else 0,
        "nonce": status.nonce if sealed else "",
        "version": COMPATIBLE,
        "build_date": "",
        "migration": False,
        "cluster_name": status.cluster_name,
        "cluster_id": status.cluster_id,
        "recovery_seal": status.recovery,
        "storage_type": "postgresql",
        "rolled_back": bool(status.rolled_back),
        "slots": [{"id": slot_id, "type": kind} for slot_id, kind in status.slots],
        "secrethub_version": secrethub.__version__,
    }


async def asked_status(core: Core) -> SealStatus:
    """Return the seal's state for anybody who asks, however many they are: SealState has one turn."""
    shared = core.engine_state.get("seal-status")
    if not isinstance(shared, Shared):
        shared = core.engine_state["seal-status"] = Shared(core.seal.status, _STATUS_DISTANCE)
    status: SealStatus = await shared.get()
    return status


async def seal_status(context: Context, _body: None) -> Answer:
    """Answer the seal's state; progress comes from SealState."""
    return Answer(data=_status_body(context, await asked_status(context.core)), bare=True)


async def step_down(_context: Context, _body: None) -> Answer:
    """Answer Vault's clients that this node does not lead: every node does what every other does."""
    return Answer()


async def leader(_context: Context, _body: None) -> Answer:
    """Answer that this node serves: there is no leader on the request path."""
    return Answer(
        data={
            "ha_enabled": True,
            "is_self": True,
            "active_time": "0001-01-01T00:00:00Z",
            "leader_address": "",
            "leader_cluster_address": "",
            "performance_standby": False,
        },
        bare=True,
    )


async def health(context: Context, _body: None) -> Answer:
    """Answer from what this process knows, without asking anybody."""
    core, query = context.core, context.query
    status = core.seal_status
    silent = time.monotonic() - core.feed.healthy_at > _SILENT_SECONDS
    initialised = status is None or status.initialised
    sealed = not core.unsealed
    if not initialised:
        code = _code(query.get("uninitcode"), 501)
    elif sealed:
        code = _code(query.get("sealedcode"), 503)
    elif silent:
        code = 503
    else:
        code = _code(query.get("activecode"), 200)
    return Answer(
        data={
            "initialized": initialised,
            "sealed": sealed,
            "standby": False,
            "performance_standby": False,
            "replication_performance_mode": "disabled",
            "replication_dr_mode": "disabled",
            "server_time_utc": int(context.now.timestamp()),
            "version": COMPATIBLE,
            "secrethub_version": secrethub.__version__,
            "cluster_name": status.cluster_name if status is not None else "",
            "cluster_id": status.cluster_id if status is not None else "",
            "rolled_back": status is not None and bool(status.rolled_back),
            "database": "silent" if status is None or (silent and not sealed) else "ok",
        },
        bare=True,
        code=code,
    )


def _code(text: str | None, default: int) -> int:
    if text is None:
        return default
    if not (len(text) == 3 and text.isascii() and text.isdigit() and 200 <= int(text) <= 599):
        raise InvalidRequest("status codes are between 200 and 599")
    return int(text)


async def unseal(context: Context, body: UnsealRequest) -> Answer:
    """Take one share, or forget those given so far; answer the progress."""
    core = context.core
    async with checks(context, "sys.unseal"):
        if body.migrate:
            raise InvalidRequest("there is no seal migration to take part in")
        if not body.reset and not body.key:
            raise InvalidRequest("'key' must be given, or 'reset' set to true")
        share = b"" if body.reset else await _share(core, body.key)
    if body.reset:
        await core.seal.reset(origin_of(context))
    else:
        await core.seal.submit_share(share, origin_of(context))
    return await opened(context)


async def _share(core: Core, text: str) -> bytes:
    try:
        return decode_share(text)
    except InvalidRequest:
        # Where there is no cluster no share is right, whatever it looks like.
        if not (await core.seal.status()).initialised:
            raise NotInitialised from None
        raise


async def opened(context: Context) -> Answer:
    """Answer the seal's state after a share was given; once it is open, when this process has its keys."""
    core = context.core
    status = core.seal_status = await core.seal.status()
    if status.initialised and not status.sealed and not core.unsealed:
        # SealState has the key; this process gets its keyring within moments.
        await until_open(core)
        if not core.unsealed:
            raise Unavailable("the cluster is unsealed, but this node has not got its keys yet; see its log")
    return Answer(data=_status_body(context, status), bare=True)


async def until_open(core: Core) -> None:
    """Wait until this process has its keys, but not for long."""
    core.keys_due.set()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(core.opened.wait(), _OPENING_SECONDS)
