"""Our own password at a target is replaced by one that nobody else has ever seen."""

from __future__ import annotations

from secrethub.engines.answers import Nothing
from secrethub.engines.database.connection import FORM, connection_of
from secrethub.engines.database.replacing import Ended, Replacing, Whose, alone
from secrethub.engines.engine import EMPTY, Answer, Context, Operation
from secrethub.engines.kept import kept_key
from secrethub.errors import NotFound
from secrethub.storage.authority import ENGINE_CONFIGS, Row


def rotating_operations() -> tuple[Operation, ...]:
    """Return the operation that replaces our password."""
    return (
        Operation(
            name="database.rotate-root",
            method="write",
            pattern="rotate-root/{name}",
            handler=rotate_root,
            response=Nothing,
            capability="update",
            changes=True,
            summary="Replace the password of a connection by one that only SecretHub has.",
        ),
    )


async def rotate_root(context: Context, _body: None) -> Answer:
    """Replace the password of a connection.

    Raises:
        NotFound: there is no such connection.
        InvalidRequest, Unavailable: it was not replaced, or it is not known whether it was; either way
            the good one is kept.
    """
    core, key = context.core, kept_key(context.mount_id, FORM, context.params["name"])
    async with alone(core, key):
        row = await core.authority.fetch(ENGINE_CONFIGS, key)
        if row is None:
            raise NotFound("there is no such connection")
        replacing = Replacing(core, ENGINE_CONFIGS, row, _whose, context.fence.written)
        await replacing.replace(context.fence, Ended(body={}))
    return EMPTY


def _whose(row: Row) -> Whose:
    connection = connection_of(row)
    return Whose(
        connection=connection,
        username=connection.options["username"],
        statements=connection.root_rotation_statements,
    )
