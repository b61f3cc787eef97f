"""SecretIDs that have expired are removed at once instead of within a minute."""

from __future__ import annotations

from secrethub.engines.engine import Answer, Context
from secrethub.engines.expired import remove_expired
from secrethub.storage.authority import SECRET_IDS


async def tidy(context: Context, _body: None) -> Answer:
    """Remove SecretIDs that are over."""
    removed, failures = await remove_expired(context.core, SECRET_IDS)
    for failure in failures:
        context.core.metrics.integrity_failures.labels(failure.table).inc()
    wrong = (f"{len(failures)} rows are not authentic and were left alone",) if failures else ()
    return Answer(
        warnings=("Tidy operation is done.", *wrong),
        code=202,
        detail={"removed": removed, "left": [[failure.table, failure.key] for failure in failures[:20]]},
    )
