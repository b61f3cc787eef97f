"""``sys/wrapping``: keeping any JSON for somebody else, opening, looking, wrapping anew."""

from __future__ import annotations

import msgspec

from secrethub.auth.digests import token_digest
from secrethub.engines.answers import AnyObject, Nothing
from secrethub.engines.engine import Answer, Context, Hidden, Operation, WholeBody
from secrethub.engines.values import pieces
from secrethub.engines.wrapping import INVALID, check_wrapping, created_at, keep, reopened, take_out
from secrethub.errors import InvalidRequest
from secrethub.policy.builtin import WRAPPING
from secrethub.storage.authority import TOKENS
from secrethub.wire.durations import format_rfc3339

_MAX_TOKEN = 256


class WrappedAnswer(msgspec.Struct, frozen=True):
    """What was wrapped where, when (RFC 3339), and for how many seconds."""

    creation_path: str
    creation_time: str
    creation_ttl: int


class WrappingToken(Hidden, msgspec.Struct, frozen=True):
    """``token``: the wrapping token; the caller's own when it is not given."""

    token: str = ""


def wrapping_operations() -> tuple[Operation, ...]:
    """Return the operations on wrapped answers."""
    return (
        Operation(
            name="sys.wrapping.wrap",
            method="write",
            pattern="wrapping/wrap",
            handler=wrap,
            response=AnyObject,
            capability="update",
            request=WholeBody,
            summary="Keep a JSON object for whoever holds the wrapping token (header X-Vault-Wrap-TTL).",
        ),
        Operation(
            name="sys.wrapping.unwrap",
            method="write",
            pattern="wrapping/unwrap",
            handler=unwrap,
            response=AnyObject,
            capability="update",
            request=WrappingToken,
            changes=True,
            wraps=False,
            summary="Open a wrapped answer, once.",
        ),
        Operation(
            name="sys.wrapping.rewrap",
            method="write",
            pattern="wrapping/rewrap",
            handler=rewrap,
            response=Nothing,
            capability="update",
            request=WrappingToken,
            changes=True,
            wraps=False,
            summary="Put a wrapped answer under a new token; the old one is worth nothing then.",
        ),
        *(
            Operation(
                name="sys.wrapping.lookup",
                method=method,
                pattern="wrapping/lookup",
                handler=lookup,
                response=WrappedAnswer,
                capability="update",
                request=WrappingToken,
                public=True,
                summary="Tell where a wrapped answer comes from, without opening it. The token is the proof.",
            )
            for method in ("read", "write")
        ),
    )


async def wrap(context: Context, _body: WholeBody) -> Answer:
    """Answer what was sent; it is kept on the way out, as every answer that shall be wrapped.

    Raises:
        InvalidRequest: no time was given.
    """
    if not context.when.wrap_ttl:
        raise InvalidRequest("endpoint requires response wrapping to be used")
    return Answer(data=pieces(context.body.strip() or b"{}"))


async def unwrap(context: Context, body: WrappingToken) -> Answer:
    """Answer what was kept and remove it: of many who ask at the same time one is answered."""
    core = context.core
    token = _token(context, body)
    async with core.authority.issue(context.fence) as change:
        row, content = await take_out(change, core.keyring(), token, context.now)
    return msgspec.structs.replace(
        reopened(content),
        detail={"creation_path": row.body["path"], "token": row.key[:16]},
    )


async def rewrap(context: Context, body: WrappingToken) -> Answer:
    """Keep what was kept for as long again under a new token."""
    core = context.core
    keyring = core.keyring()
    token = _token(context, body)
    async with core.authority.issue(context.fence) as change:
        row, content = await take_out(change, keyring, token, context.now)
        auth = reopened(content).auth
        info = await keep(
            change,
            keyring,
            context.now,
            content,
            ttl=row.body["ttl"],
            path=row.body["path"],
            wrapped_accessor="" if auth is None else auth.accessor,
        )
    return Answer(
        wrap_info=info,
        detail={
            "creation_path": row.body["path"],
            "token": row.key[:16],
            "new_token": token_digest(keyring, info.token)[:16],
        },
    )


async def lookup(context: Context, body: WrappingToken) -> Answer:
    """Answer when, where and for how long an answer was wrapped."""
    core = context.core
    digest = token_digest(core.keyring(), _token(context, body))
    context.depends("issued", f"{TOKENS.name}/{digest}")
    row = await core.authority.fetch(TOKENS, digest)
    check_wrapping(row, context.now)
    assert row is not None
    return Answer(
        data={
            "creation_path": row.body["path"],
            "creation_time": format_rfc3339(created_at(row)),
            "creation_ttl": row.body["ttl"],
        },
        detail={"token": digest[:16]},
    )


def _token(context: Context, body: WrappingToken) -> str:
    """Return the wrapping token.

    Raises:
        InvalidRequest: there is none.
    """
    token = body.token
    if not token and context.token is not None:
        own = context.identity is None or context.identity.policies == (WRAPPING,)
        token = context.token.reveal() if own else ""
    if not 0 < len(token) <= _MAX_TOKEN:
        raise InvalidRequest(INVALID)
    return token
