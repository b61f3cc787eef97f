"""``cubbyhole/``: a place for each service token, which nobody else sees, root neither.

Everything that a token keeps is one row, sealed to its place, under the token's digest: whoever does not
hold the token cannot name it. The row goes in the transaction that removes the token. A write looks
whether the token is still there under the same locks, so none comes after its end.
"""

from __future__ import annotations

import base64

import msgspec

from secrethub.crypto.aead import Place
from secrethub.crypto.keyring import Keyring
from secrethub.engines.answers import AnyObject, Names, Nothing
from secrethub.engines.engine import EMPTY, Answer, Context, Operation, WholeBody
from secrethub.engines.listing import PAGES, shown
from secrethub.engines.values import decoded, encoded, pieces
from secrethub.errors import InvalidRequest, NotFound, PermissionDenied
from secrethub.storage.authority import CUBBYHOLES, TOKENS, Change, Row

_MAX_BYTES = 1 << 20
_Entries = dict[str, msgspec.Raw]


class CubbyholeEngine:
    """Engine kind ``cubbyhole``, built in at ``cubbyhole/``."""

    kind = "cubbyhole"

    def operations(self) -> tuple[Operation, ...]:
        """Return what can be done with one's own place."""
        return (
            Operation(
                name="cubbyhole.list",
                method="list",
                pattern="{path?}",
                handler=list_names,
                response=Names,
                capability="list",
                query=PAGES,
                summary="List what one's own token keeps.",
            ),
            Operation(
                name="cubbyhole.read",
                method="read",
                pattern="{path*}",
                handler=read,
                response=AnyObject,
                capability="read",
                summary="Read what one's own token keeps.",
            ),
            Operation(
                name="cubbyhole.write",
                method="write",
                pattern="{path*}",
                handler=write,
                response=Nothing,
                capability="update",
                request=WholeBody,
                changes=True,
                exists=exists,
                summary="Keep something for as long as one's own token lives.",
            ),
            Operation(
                name="cubbyhole.delete",
                method="delete",
                pattern="{path*}",
                handler=delete,
                response=Nothing,
                capability="delete",
                changes=True,
                summary="Delete what one's own token keeps.",
            ),
        )

    def native_prefix(self, mount: str) -> str:
        """Native rules write the path as it is."""
        return mount


async def exists(context: Context) -> bool:
    """Tell whether a write would update rather than create."""
    return context.params["path"] in await _entries(context)


async def list_names(context: Context, _body: None) -> Answer:
    """Answer the names below a path; those that end with ``/`` have names below them."""
    path = context.params.get("path", "")
    prefix = f"{path}/" if path else ""
    names = set()
    for name in await _entries(context):
        if name.startswith(prefix):
            head, slash, _ = name[len(prefix) :].partition("/")
            names.add(head + slash)
    told = await shown(context, sorted(names))
    if not told:
        raise NotFound("nothing is kept there")
    return Answer(data={"keys": told})


async def read(context: Context, _body: None) -> Answer:
    """Answer what is kept at a path."""
    found = (await _entries(context)).get(context.params["path"])
    if found is None:
        raise NotFound("nothing is kept there")
    return Answer(data=pieces(bytes(found)))


async def write(context: Context, body: WholeBody) -> Answer:
    """Keep an object at a path instead of what is there."""
    if not body.fields:
        raise InvalidRequest("missing data fields")
    async with context.core.authority.issue(context.fence) as change:
        entries = await _held(context, change)
        made = msgspec.Raw(encoded(decoded(context.body)))
        await _put(context, change, {**entries, context.params["path"]: made})
    return EMPTY


async def delete(context: Context, _body: None) -> Answer:
    """Delete what is kept at a path; that there is nothing is no error."""
    async with context.core.authority.issue(context.fence) as change:
        entries = await _held(context, change)
        if entries.pop(context.params["path"], None) is None:
            return EMPTY
        if entries:
            await _put(context, change, entries)
        else:
            await change.delete(CUBBYHOLES, _owner(context))
    return EMPTY


def _owner(context: Context) -> str:
    """Return the digest of the token that the place belongs to.

    Raises:
        InvalidRequest: whoever asks has none.
    """
    identity = context.identity
    if identity is None or identity.kind != "token" or identity.batch:
        raise InvalidRequest('cubbyhole operations are only supported by "service" type tokens')
    return identity.key


async def _entries(context: Context) -> _Entries:
    """Return what is kept, straight from the database: places may be large, and are read seldom."""
    core, owner = context.core, _owner(context)
    context.depends("issued", f"{CUBBYHOLES.name}/{owner}")
    return _opened(core.keyring(), owner, await core.authority.fetch(CUBBYHOLES, owner))


async def _held(context: Context, change: Change) -> _Entries:
    """Return what is kept, locked.

    Raises:
        PermissionDenied: the token has gone meanwhile.
    """
    owner = _owner(context)
    if await change.get(TOKENS, owner) is None:
        raise PermissionDenied("the token is gone")
    return _opened(context.core.keyring(), owner, await change.get(CUBBYHOLES, owner))


def _opened(keyring: Keyring, owner: str, row: Row | None) -> _Entries:
    if row is None or "entries" not in row.body:
        return {}
    content = keyring.open(base64.b64decode(row.body["entries"]), _place(owner))
    return msgspec.json.decode(content, type=_Entries)


async def _put(context: Context, change: Change, entries: _Entries) -> None:
    owner = _owner(context)
    content = msgspec.json.encode(entries)
    if len(content) > _MAX_BYTES:
        raise InvalidRequest(f"a token keeps at most {_MAX_BYTES} bytes")
    sealed = base64.b64encode(context.core.keyring().seal(content, _place(owner))).decode()
    await change.put(CUBBYHOLES, owner, {"entries": sealed})


def _place(owner: str) -> Place:
    return Place(table=CUBBYHOLES.name, column="entries", row=owner, version=0)
