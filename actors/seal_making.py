"""Making the cluster: written down before, and never given out when it could not be written down after."""

from __future__ import annotations

from datetime import datetime

from actors.seal_journal import SealJournal
from secrethub.audit.event import Origin
from secrethub.errors import Conflict, SecretHubError, Unavailable
from secrethub.operations.seal_lifecycle import Initialised, RootKeyType, initialise
from secrethub.storage.database import Database

_OPERATION = "sys.init"


async def make_cluster(
    database: Database,
    journal: SealJournal,
    origin: Origin | None,
    shares: int,
    threshold: int,
    now: datetime,
    *,
    exists: bool,
    dev: bool,
    root_key_type: RootKeyType,
) -> Initialised:
    """Make the cluster.

    Args:
        database: where.
        journal: of the seal.
        origin: who asked.
        shares: unseal shares to make.
        threshold: how many of them unseal.
        now: the instant.
        exists: whether there is a cluster already.
        dev: whether it is one for development.
        root_key_type: of the certificate authority.

    Raises:
        Conflict: there is a cluster already.
        InvalidRequest: impossible numbers.
        Unavailable: the database does not answer.
    """
    detail = {"secret_shares": shares, "secret_threshold": threshold}
    if exists:
        refusal = Conflict("Vault is already initialized")
        await journal.record(origin, _OPERATION, "refused", reason=refusal.code, detail=detail)
        raise refusal
    await journal.record(origin, _OPERATION, "intent", detail=detail)
    try:
        made = await initialise(database, shares, threshold, now, dev=dev, root_key_type=root_key_type)
    except SecretHubError as exc:
        await journal.record(origin, _OPERATION, "refused", reason=exc.code, detail=detail)
        raise
    try:
        await journal.record(origin, _OPERATION, "done", detail={"cluster_id": made.cluster_id})
    except Unavailable as exc:
        raise Unavailable(
            "the cluster was made, but that could not be written down, so its shares were not "
            "given out: drop the database and initialise again"
        ) from exc
    return made
