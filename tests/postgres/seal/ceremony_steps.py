"""Steps that the tests of ceremonies share."""

from __future__ import annotations

import base64

from seal_steps import until

from actors.handles import SealClient
from actors.local import LocalTree
from secrethub.engines.ceremonies import CeremonyResult
from secrethub.errors import WrongShare
from secrethub.node import NodeSettings
from secrethub.seal.wishes import Purpose, Wish
from secrethub.storage.database import Database

OTP = "0123456789abcdefghijklmnopqrstuv"
Keys = tuple[bytes, ...]


async def carried_out(client: SealClient, purpose: Purpose, wish: Wish, shares: Keys) -> CeremonyResult:
    """Start an attempt and give every share it needs."""
    begun = await client.ceremonies.start(purpose, wish)
    return await given(client, purpose, begun.nonce, shares)


async def given(client: SealClient, purpose: Purpose, nonce: str, shares: Keys) -> CeremonyResult:
    """Give shares until the attempt is complete."""
    for share in shares:
        result = await client.ceremonies.give(purpose, share, nonce)
        if result.progress.complete:
            return result
    raise AssertionError("not complete")


def keys_of(result: CeremonyResult) -> Keys:
    """The new shares."""
    return tuple(base64.b64decode(text) for text in result.secret)


async def open_after_outage(settings: NodeSettings, tree: LocalTree, psk: bytes, shares: Keys) -> bool:
    """Whether the shares open the cluster once every process that held a key is gone."""
    await tree.stop()
    again = LocalTree(settings)
    await again.start()
    try:
        client = SealClient(again.handles, psk)
        for share in shares:
            try:
                await client.submit_share(share)
            except WrongShare:
                return False
        return not (await client.status()).sealed
    finally:
        await again.stop()


async def opens_by_itself(client: SealClient) -> None:
    """Wait until the cluster is unsealed."""

    async def unsealed() -> bool:
        return not (await client.status()).sealed

    await until(unsealed)


async def events(database: Database) -> list[tuple[str, str]]:
    """The seal's own entries in the ledger, in order."""
    async with database.read() as connection:
        rows = await connection.fetch(
            "SELECT operation, outcome FROM audit_entries WHERE kind = 'event' ORDER BY at, stream, number"
        )
    return [(row["operation"], row["outcome"]) for row in rows]
