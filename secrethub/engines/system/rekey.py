"""Rekey: other shares, made by enough of the present ones. For unseal shares and for recovery shares.

Beginning and cancelling take a token with sudo.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import msgspec

from secrethub.engines.ceremonies import CeremonyResult, Progress
from secrethub.engines.engine import Answer, Context, Hidden, Operation
from secrethub.engines.system.attempts import Attempt, new_shares
from secrethub.engines.system.seal_answers import AttemptAnswer
from secrethub.engines.system.seal_gate import beside_the_ingress, origin_of
from secrethub.errors import InvalidRequest
from secrethub.seal.wishes import Rekey

_PLAIN = frozenset({"secret_shares", "secret_threshold", "require_verification", "backup"})


class RekeyRequest(Hidden, msgspec.Struct, frozen=True, forbid_unknown_fields=True):
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


def rekey_operations() -> tuple[Operation, ...]:
    """Return the operations, for both kinds of shares."""
    return (*_operations("rekey", recovery=False), *_operations("rekey-recovery-key", recovery=True))


def _operations(base: str, *, recovery: bool) -> tuple[Operation, ...]:
    shares = "recovery shares" if recovery else "unseal shares"
    making = Attempt(
        purpose="rekey",
        names=(f"sys.{base}.progress", f"sys.{base}.cancel", f"sys.{base}.update"),
        attempt=f"{base}/init",
        give=f"{base}/update",
        summaries=(
            f"Tell how far the making of new {shares} is.",
            f"Give up making new {shares}.",
            f"Give a present share, so that new {shares} are made.",
        ),
        shown=partial(_shown, recovery=recovery),
        done=_made,
    )
    verifying = Attempt(
        purpose="rekey-verify",
        names=(f"sys.{base}.verify-progress", f"sys.{base}.verify-cancel", f"sys.{base}.verify"),
        attempt=f"{base}/verify",
        give=f"{base}/verify",
        summaries=(
            f"Tell how many of the new {shares} were given back.",
            "Begin the verification anew.",
            f"Give a new share back; enough of the new {shares} take the old ones' place.",
        ),
        shown=_verification,
        done=_verified,
        anew=True,
    )
    start = Operation(
        name=f"sys.{base}.start",
        method="write",
        pattern=f"{base}/init",
        handler=partial(_start, making=making, recovery=recovery),
        response=AttemptAnswer,
        capability="update",
        request=RekeyRequest,
        changes=True,
        sudo=True,
        wraps=False,
        plain=_PLAIN,
        bare=True,
        summary=f"Begin to make new {shares}.",
    )
    return (start, *making.operations(), *verifying.operations())


async def _start(context: Context, body: RekeyRequest, *, making: Attempt, recovery: bool) -> Answer:
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
    return making.begun(await context.core.seal.ceremonies.start(making.purpose, wish, origin_of(context)))


def _shown(found: Progress, *, recovery: bool) -> dict[str, Any]:
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
    return data


def _made(result: CeremonyResult) -> dict[str, Any]:
    made = result.progress
    data = {
        "nonce": made.nonce,
        "complete": True,
        **new_shares(result),
        "pgp_fingerprints": None,
        "backup": False,
        "verification_required": bool(made.verification),
    }
    if made.verification:
        data["verification_nonce"] = made.verification
    return data


def _verification(found: Progress) -> dict[str, Any]:
    return {
        "nonce": found.nonce,
        "started": found.started,
        "t": found.threshold,
        "n": found.shares,
        "progress": found.progress,
    }


def _verified(result: CeremonyResult) -> dict[str, Any]:
    return {"nonce": result.progress.nonce, "complete": True}
