"""Rotating data keys by age and before they were used too often."""

from __future__ import annotations

from secrethub.audit.event import Origin
from secrethub.engines.rotation import load_rotation
from secrethub.engines.runtime import Core
from secrethub.operations.note import note
from secrethub.storage.data_keys import uses

_OPERATION, _PATH, _ACTOR = "sys.rotate", "sys/rotate", "system"


async def rotate_when_due(core: Core) -> int | None:
    """Make a new data key if it is time for one; return its number.

    Every node asks itself. Of those who come to the same answer at the same time one makes the key.

    Raises:
        SecretHubError: the settings are not authentic, or something does not answer; ask again later.
    """
    keyring = core.keyring()
    newest = keyring.newest
    rotation = await load_rotation(core)
    used = await uses(core.database, newest)
    why = rotation.due(made_at=keyring.made_at(newest), uses=used, now=core.clock.now())
    if not why:
        return None
    await note(
        core,
        operation=_OPERATION,
        path=_PATH,
        actor=_ACTOR,
        outcome="begun",
        reason=f"data key {newest} is {why}",
        detail={"after": newest},
    )
    number = await core.seal.rotate(newest, Origin(actor=_ACTOR, path=_PATH))
    await core.data_keys.learn_of(number)
    return number
