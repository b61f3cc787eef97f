"""``sys/internal/specs/openapi``: what can be asked for, in the form that tools read."""

from __future__ import annotations

import asyncio

import secrethub
from secrethub.engines.answers import AnyObject
from secrethub.engines.engine import Answer, Context, Operation
from secrethub.engines.openapi import document
from secrethub.engines.system.mounts import visible


def spec_operations() -> tuple[Operation, ...]:
    """Return the operation that describes all others."""
    return (
        Operation(
            name="sys.openapi",
            method="read",
            pattern="internal/specs/openapi",
            handler=openapi,
            response=AnyObject,
            capability="read",
            bare=True,
            wraps=False,
            summary="Describe the API as an OpenAPI document.",
        ),
    )


async def openapi(context: Context, _body: None) -> Answer:
    """Answer the description of the mounts below which the caller may do anything at all."""
    table = context.core.mounts
    offers = [
        (mount, table.operations(mount))
        for mount in sorted(await table.load(), key=lambda mount: mount.path)
        if await visible(context, mount.path)
    ]
    # Hundreds of schemas take a while, and nobody else shall wait for them.
    return Answer(data=await asyncio.to_thread(document, secrethub.__version__, offers), bare=True)
