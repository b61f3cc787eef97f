"""``sys/leases``: many leases ended at once: below a prefix, given up on, or overdue.

As in Vault, what is below ``auth/`` are tokens, by the path that they were made at.
"""

from __future__ import annotations

import msgspec

from secrethub.engines.answers import Nothing
from secrethub.engines.engine import EMPTY, Answer, Context, Operation
from secrethub.engines.lease_ending import BATCH, end_these
from secrethub.engines.mounts import AUTH
from secrethub.engines.own_changes import record
from secrethub.engines.system.answers import LeasesOrderedAnswer
from secrethub.engines.system.leases import asker
from secrethub.engines.token.ending import end_below
from secrethub.errors import Unavailable
from secrethub.storage import lease_ends, lease_lists
from secrethub.storage.fence import hold_shared
from secrethub.storage.leases import forgotten
from secrethub.wire.canonical_path import check_path

_WARNINGS = 100
"""Of leases that may be left at their targets."""
_TOLD = 1000
"""Ids that the ledger has of them."""


class RevokePrefix(msgspec.Struct, frozen=True):
    """Whether to answer only when the leases are gone at their targets."""

    sync: bool = False


class RetryLeases(msgspec.Struct, frozen=True):
    """Which dead letters: those below ``prefix``, all when it is empty."""

    prefix: str = ""


def lease_revocation_operations() -> tuple[Operation, ...]:
    """Return the operations that end many leases; all take ``sudo``."""
    return (
        *(
            Operation(
                name="lease.revoke-prefix",
                method="write",
                pattern=pattern,
                handler=revoke_prefix,
                response=LeasesOrderedAnswer,
                capability="update",
                request=RevokePrefix,
                changes=True,
                sudo=True,
                plain=frozenset({"sync"}),
                summary="End all leases below a prefix; below auth/, all tokens.",
            )
            for pattern in ("leases/revoke-prefix/{prefix*}", "revoke-prefix/{prefix*}")
        ),
        *(
            Operation(
                name="lease.revoke-force",
                method="write",
                pattern=pattern,
                handler=revoke_force,
                response=LeasesOrderedAnswer,
                capability="update",
                changes=True,
                sudo=True,
                summary="Forget all leases below a prefix, even if they cannot be ended at their targets.",
            )
            for pattern in ("leases/revoke-force/{prefix*}", "revoke-force/{prefix*}")
        ),
        Operation(
            name="lease.retry",
            method="write",
            pattern="leases/retry",
            handler=retry,
            response=LeasesOrderedAnswer,
            capability="update",
            request=RetryLeases,
            changes=True,
            sudo=True,
            strict=True,
            plain=frozenset({"prefix"}),
            summary="Try again to end leases whose end was given up.",
        ),
        Operation(
            name="lease.tidy",
            method="write",
            pattern="leases/tidy",
            handler=tidy,
            response=Nothing,
            capability="update",
            changes=True,
            sudo=True,
            summary="Make due whatever should be over and is not.",
        ),
    )


async def revoke_prefix(context: Context, body: RevokePrefix) -> Answer:
    """End all leases below a prefix, and answer how many; with ``sync`` they are gone when this returns.

    Tokens are no good to anybody then, whether it was asked for or not.
    """
    if tokens := _of_tokens(context):
        return await end_below(context, tokens)
    failures: dict[str, str] = {}
    number = 0
    core, after = context.core, ""
    while identifiers := await _order(context, after):
        after, number = identifiers[-1], number + len(identifiers)
        if body.sync:
            failures |= await end_these(core, identifiers, asker(context))
    for identifier, reason in failures.items():
        raise Unavailable(
            f"{len(failures)} of {number} leases could not be ended yet, this goes on by itself: "
            f"{identifier}: {reason}"
        )
    return Answer(data={"leases": number}, detail={"leases": number})


async def revoke_force(context: Context, _body: None) -> Answer:
    """End all leases below a prefix as far as that can be done, forget the others, and answer how many."""
    if tokens := _of_tokens(context):
        return await end_below(context, tokens)
    core, after, number = context.core, "", 0
    left: list[str] = []
    while identifiers := await _order(context, after):
        after, number = identifiers[-1], number + len(identifiers)
        failures = await end_these(core, identifiers, asker(context))
        # As of every lease, the ledger says that its row goes before it does.
        gone = [forgotten(identifier) for identifier in failures]
        await record(core, "lease.forget", context.path, gone, actor=asker(context))
        await lease_ends.ended(core.database, list(failures))
        left += failures
    warnings = tuple(f"this may be left at its target: {identifier}" for identifier in left[:_WARNINGS])
    return Answer(data={"leases": number}, warnings=warnings, detail={"leases": number, "left": left[:_TOLD]})


async def retry(context: Context, body: RetryLeases) -> Answer:
    """Try again to end leases whose end was given up."""
    async with context.core.database.write() as connection:
        await hold_shared(connection, context.fence)
        identifiers = await lease_ends.retry(connection, body.prefix)
    return Answer(data={"leases": len(identifiers)}, detail={"leases": identifiers[:_TOLD]})


async def tidy(context: Context, _body: None) -> Answer:
    """Make due whatever should be over and is not, whoever put it off."""
    async with context.core.database.write() as connection:
        await hold_shared(connection, context.fence)
        number = await lease_ends.mend_deadlines(connection)
    return msgspec.structs.replace(EMPTY, detail={"leases": number})


def _of_tokens(context: Context) -> str:
    """Return the prefix if what is below it are tokens, else nothing."""
    prefix = check_path(context.params["prefix"])
    return prefix if f"{prefix}/".startswith(AUTH) else ""


async def _order(context: Context, after: str) -> list[str]:
    """Order the end of the next leases below the request's prefix, and return their ids."""
    prefix = check_path(context.params["prefix"])
    async with context.core.database.write() as connection:
        await hold_shared(connection, context.fence)
        # Whole segments only: nobody ends leases of "app2" who means "app".
        found = await lease_lists.identifiers(connection, prefix, after, BATCH)
        await lease_ends.order(connection, found)
    return found
