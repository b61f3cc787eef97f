"""Rekey: other shares, made by enough of the present ones. For unseal shares and for recovery shares.

Beginning and cancelling take a token with sudo, a share takes none: it is worth more. Each share names the
attempt it is meant for. Nothing of this is answered through Ray Serve's ingress.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from functools import partial
from typing import Any

import msgspec

from secrethub.engines.ceremonies import Progress
from secrethub.engines.engine import EMPTY, Answer, Context, Operation
from secrethub.engines.system.seal import beside_the_ingress, origin_of
from secrethub.errors import InvalidRequest
from secrethub.seal.shares import decode_share
from secrethub.seal.wishes import Rekey


class RekeyRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What shares shall be made.

    What would encrypt the new shares is known only to be refused: they are given out in clear. Vault's
    clients say ``stored_shares`` for the sake of other seals; it says nothing here.
    """

    secret_shares: int
    secret_threshold: int
    require_verification: bool = False
    backup: bool = False
    pgp_keys: list[str] = []
    stored_shares: int = 0


class ShareRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One share in hexadecimal or base64, and the attempt that it is meant for."""

    key: str
    nonce: str

    def __repr__(self) -> str:
        return "ShareRequest()"


def rekey_operations() -> tuple[Operation, ...]:
    """Return the operations, for both kinds of shares."""
    return (*_operations("rekey", recovery=False), *_operations("rekey-recovery-key", recovery=True))


def _operations(base: str, *, recovery: bool) -> tuple[Operation, ...]:
    shares = "recovery shares" if recovery else "unseal shares"
    plain = frozenset({"nonce", "secret_shares", "secret_threshold", "require_verification", "backup"})
    return (
        Operation(
            name=f"sys.{base}.progress",
            method="read",
            pattern=f"{base}/init",
            handler=partial(progress, recovery=recovery),
            capability="read",
            public=True,
            bare=True,
            summary=f"Tell how far the making of new {shares} is.",
        ),
        Operation(
            name=f"sys.{base}.start",
            method="write",
            pattern=f"{base}/init",
            handler=partial(start, recovery=recovery),
            capability="update",
            request=RekeyRequest,
            changes=True,
            sudo=True,
            wraps=False,
            plain=plain,
            bare=True,
            summary=f"Begin to make new {shares}.",
        ),
        Operation(
            name=f"sys.{base}.cancel",
            method="delete",
            pattern=f"{base}/init",
            handler=cancel,
            capability="delete",
            changes=True,
            sudo=True,
            bare=True,
            summary=f"Give up making new {shares}.",
        ),
        Operation(
            name=f"sys.{base}.update",
            method="write",
            pattern=f"{base}/update",
            handler=partial(update, recovery=recovery),
            capability="update",
            request=ShareRequest,
            changes=True,
            public=True,
            wraps=False,
            plain=plain,
            bare=True,
            summary=f"Give a present share, so that new {shares} are made.",
        ),
        Operation(
            name=f"sys.{base}.verify-progress",
            method="read",
            pattern=f"{base}/verify",
            handler=verify_progress,
            capability="read",
            public=True,
            bare=True,
            summary=f"Tell how many of the new {shares} were given back.",
        ),
        Operation(
            name=f"sys.{base}.verify",
            method="write",
            pattern=f"{base}/verify",
            handler=verify,
            capability="update",
            request=ShareRequest,
            changes=True,
            public=True,
            wraps=False,
            plain=plain,
            bare=True,
            summary=f"Give a new share back; enough of the new {shares} take the old ones' place.",
        ),
        Operation(
            name=f"sys.{base}.verify-cancel",
            method="delete",
            pattern=f"{base}/verify",
            handler=verify_cancel,
            capability="delete",
            changes=True,
            sudo=True,
            bare=True,
            summary="Begin the verification anew.",
        ),
    )


async def progress(context: Context, _body: None, *, recovery: bool) -> Answer:
    """Answer how far it is."""
    beside_the_ingress(context)
    return _answer(await context.core.seal.ceremonies.attempt("rekey"), recovery=recovery)


async def start(context: Context, body: RekeyRequest, *, recovery: bool) -> Answer:
    """Begin an attempt."""
    beside_the_ingress(context)
    if body.backup or body.pgp_keys:
        raise InvalidRequest("backup and pgp_keys are not supported: shares are given out in clear, once")
    wish = Rekey(
        shares=body.secret_shares,
        threshold=body.secret_threshold,
        recovery=recovery,
        verify=body.require_verification,
    )
    begun = await context.core.seal.ceremonies.start("rekey", wish, origin_of(context))
    return _answer(begun, recovery=recovery)


async def cancel(context: Context, _body: None) -> Answer:
    """Give up the attempt, if there is one; the present shares stay as they are."""
    beside_the_ingress(context)
    await context.core.seal.ceremonies.cancel("rekey", origin_of(context))
    return EMPTY


async def update(context: Context, body: ShareRequest, *, recovery: bool) -> Answer:
    """Take a present share; the last one answers the new ones."""
    beside_the_ingress(context)
    ceremonies = context.core.seal.ceremonies
    origin = origin_of(context)
    result = await ceremonies.give("rekey", decode_share(body.key), body.nonce, origin)
    if not result.progress.complete:
        return _answer(result.progress, recovery=recovery)
    made = result.progress
    data: dict[str, Any] = {
        "nonce": made.nonce,
        "complete": True,
        "keys": [base64.b64decode(key).hex() for key in result.secret],
        "keys_base64": list(result.secret),
        "pgp_fingerprints": None,
        "backup": False,
        "verification_required": bool(made.verification),
    }
    if made.verification:
        return Answer(data={**data, "verification_nonce": made.verification}, bare=True)

    async def delivered() -> None:
        await ceremonies.settle(made.slot_id, origin)

    return Answer(data=data, bare=True, delivered=delivered)


async def verify_progress(context: Context, _body: None) -> Answer:
    """Answer how many of the new shares were given back."""
    beside_the_ingress(context)
    return Answer(data=_verification(await context.core.seal.ceremonies.attempt("rekey-verify")), bare=True)


async def verify(context: Context, body: ShareRequest) -> Answer:
    """Take a new share back; with the last one needed the new shares take the old ones' place."""
    beside_the_ingress(context)
    result = await context.core.seal.ceremonies.give(
        "rekey-verify", decode_share(body.key), body.nonce, origin_of(context)
    )
    if result.progress.complete:
        return Answer(data={"nonce": result.progress.nonce, "complete": True}, bare=True)
    return Answer(data=_verification(result.progress), bare=True)


async def verify_cancel(context: Context, _body: None) -> Answer:
    """Forget the shares that were given back; answer the nonce of the next verification."""
    beside_the_ingress(context)
    ceremonies = context.core.seal.ceremonies
    await ceremonies.cancel("rekey-verify", origin_of(context))
    return Answer(data=_verification(await ceremonies.attempt("rekey-verify")), bare=True)


def _verification(found: Progress) -> Mapping[str, Any]:
    return {
        "nonce": found.nonce,
        "started": found.started,
        "t": found.threshold,
        "n": found.shares,
        "progress": found.progress,
    }


def _answer(found: Progress, *, recovery: bool) -> Answer:
    mine = found if found.recovery == recovery else Progress(required=found.required)
    data: dict[str, Any] = {
        "nonce": mine.nonce,
        "started": mine.started,
        "t": mine.threshold,
        "n": mine.shares,
        "progress": mine.progress,
        "required": mine.required,
        "pgp_fingerprints": None,
        "backup": False,
        "verification_required": mine.verify,
    }
    if mine.verification:
        data["verification_nonce"] = mine.verification
    return Answer(data=data, bare=True)
