"""A cluster that opens by itself, with each cloud: after an outage, and once the cloud lets it again."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from ceremony_steps import events, given, opens_by_itself
from seal_steps import keyring_bytes, row_of, unsealed, until

from actors.handles import SealClient
from actors.local import LocalTree
from cluster.kms import OPENER
from secrethub.node import NodeSettings
from secrethub.storage.database import Database
from tests.clouds.cloud import Cloud
from tests.clouds.conftest import cloud

__all__ = ["cloud"]  # the fixture


@pytest.fixture
def settings(settings: NodeSettings, cloud: Cloud) -> NodeSettings:
    """A node whose settings have the cloud's key."""
    return msgspec.structs.replace(settings, key_services=(cloud.settings,), key_service_opener=OPENER)


async def test_a_cloud_opens_after_a_full_outage(
    tree: LocalTree,
    settings: NodeSettings,
    client: SealClient,
    psk: bytes,
    database: Database,
    cloud: Cloud,
) -> None:
    """Its slot is added with shares; after an outage it opens, unless it refuses, and then as soon as not."""
    keys = await unsealed(client, 3, 2)
    begun = await client.ceremonies.add_slot(cloud.settings.kind, cloud.settings.name)
    slot_id = (await given(client, "slots", begun.nonce, keys[:2])).progress.slot_id
    await client.ceremonies.try_slot(slot_id)
    before, opened = await keyring_bytes(tree, psk, database), await row_of(database)
    await tree.stop()

    credentials = Path(str(cloud.settings.credentials_file))
    good = credentials.read_bytes()
    cloud.deny()
    again = LocalTree(settings)
    await again.start()
    try:
        alone = SealClient(again.handles, psk)

        async def refused() -> bool:
            return ("sys.auto-unseal", "failed") in await events(database)

        await until(refused)
        assert (await alone.status()).sealed
        credentials.write_bytes(good)
        await opens_by_itself(alone)
        assert await keyring_bytes(again, psk, database) == before
    finally:
        await again.stop()
    row = await row_of(database)
    assert (row.seal_epoch, row.root_version) == (opened.seal_epoch + 1, opened.root_version)
    told = [outcome for operation, outcome in await events(database) if operation == "sys.auto-unseal"]
    assert told == ["failed", "intent", "done"]
