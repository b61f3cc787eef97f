"""Making a root token with enough shares, for whoever has none left.

No token is needed, for there may be none. So an attempt begins, and is given up, on a node itself only;
shares may come from anywhere. The token is answered hidden behind a one-time password that only whoever
began knows, so nobody who gives a share, and nobody who sees the answer, can use it.
"""

from __future__ import annotations

from typing import Any

import msgspec

from secrethub.engines.ceremonies import CeremonyResult, Progress
from secrethub.engines.engine import Answer, Context, Hidden, Operation
from secrethub.engines.system.attempts import Attempt
from secrethub.engines.system.seal_answers import AttemptAnswer
from secrethub.engines.system.seal_gate import beside_the_ingress, from_loopback, origin_of
from secrethub.errors import InvalidRequest, PermissionDenied
from secrethub.seal.wishes import OTP_LENGTH, GenerateRoot, check_otp, new_otp


class AttemptRequest(Hidden, msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The one-time password; one is made if none is given."""

    otp: str = ""
    pgp_key: str = ""


def _on_a_node(context: Context) -> None:
    """Let only somebody on a node itself decide that there is an attempt.

    Raises:
        PermissionDenied: from another machine, or not known from where.
    """
    beside_the_ingress(context)
    if not from_loopback(context):
        raise PermissionDenied("an attempt to make a root token is begun and given up on a node itself")


def _shown(found: Progress, *, otp: str = "", encoded: str = "") -> dict[str, Any]:
    return {
        "nonce": found.nonce,
        "started": found.started or found.complete,
        "progress": found.required if found.complete else found.progress,
        "required": found.required,
        "complete": found.complete,
        "encoded_token": encoded,
        "encoded_root_token": encoded,
        "pgp_fingerprint": "",
        "otp": otp,
        "otp_length": OTP_LENGTH,
    }


def _done(result: CeremonyResult) -> dict[str, Any]:
    return _shown(result.progress, encoded="".join(result.secret))


_MAKING = Attempt(
    purpose="generate-root",
    names=("sys.generate-root.progress", "sys.generate-root.cancel", "sys.generate-root.update"),
    attempt="generate-root/attempt",
    give="generate-root/update",
    summaries=(
        "Tell how far the making of a root token is.",
        "Give up making a root token.",
        "Give a share, so that a root token is made.",
    ),
    shown=_shown,
    done=_done,
    may_end=_on_a_node,
)


def root_token_operations() -> tuple[Operation, ...]:
    """Return the operations."""
    return (
        Operation(
            name="sys.generate-root.start",
            method="write",
            pattern="generate-root/attempt",
            handler=start,
            response=AttemptAnswer,
            capability="update",
            request=AttemptRequest,
            changes=True,
            public=True,
            wraps=False,
            bare=True,
            summary="Begin to make a root token.",
        ),
        *_MAKING.operations(),
    )


async def start(context: Context, body: AttemptRequest) -> Answer:
    """Begin an attempt; answer the one-time password if it was made here."""
    _on_a_node(context)
    if body.pgp_key:
        raise InvalidRequest("pgp_key is not supported; the token is hidden with a one-time password")
    if body.otp:
        check_otp(body.otp)
    otp = body.otp or new_otp()
    begun = await context.core.seal.ceremonies.start(
        "generate-root", GenerateRoot(otp=otp), origin_of(context)
    )
    return Answer(data=_shown(begun, otp="" if body.otp else otp), bare=True)
