"""Searching targets again and again for users that this cluster made and that have no lease.

Every node's LeaseManager does; a target is claimed, so that one of them searches it. There should be none:
they are told of in the log, the metrics, the ledger and the target's health, and removed only where the
target's configuration says so. While the cluster is sealed or the database is away it waits.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from secrethub.audit.event import Outcome
from secrethub.engines.lease_ending import targets_of
from secrethub.engines.mounts import Mount
from secrethub.engines.reconciling import ReconciledEngine, StrayRule
from secrethub.engines.runtime import Core
from secrethub.errors import Sealed, SecretHubError, Unavailable
from secrethub.operations.note import note
from secrethub.storage import stray_checks
from secrethub.storage.authority import ENGINE_CONFIGS

_LOOK_SECONDS = 1.0
_LOAD_SECONDS = 10.0
"""Between two looks at which targets are configured."""
_SEARCH_SECONDS = 120.0
"""That a search may take, less than its claim."""
_AGAIN_SECONDS = 300.0
"""Until a target that did not answer is searched again."""
_TOLD = 200
"""Names that an entry of the ledger has, and users that are removed at once."""
_REASON = 300
_OPERATION = "strays.search"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Place:
    """A target that is configured."""

    key: str
    mount: Mount
    engine: ReconciledEngine
    rule: StrayRule

    @property
    def path(self) -> str:
        """Return how the ledger calls it."""
        return f"{self.mount.path}strays/{self.rule.target}"


async def search_targets(core: Core) -> None:
    """Search targets that are due until cancelled."""
    places: dict[str, _Place] = {}
    loaded = -_LOAD_SECONDS
    while True:
        await core.opened.wait()
        try:
            if core.clock.monotonic() - loaded >= _LOAD_SECONDS:
                loaded = core.clock.monotonic()
                places = await _configured(core)
                await _tell(core, places)
            intervals = {key: place.rule.seconds for key, place in places.items() if place.rule.seconds}
            claimed = await stray_checks.claim(core.database, intervals) if intervals else None
            if claimed is not None:
                # As it is configured now, for it may be about removing users.
                places = await _configured(core)
                if claimed in places:
                    await _search(core, places[claimed])
        except SecretHubError as exc:
            _log.warning("targets cannot be searched for strays now: %s", exc.code)
        await asyncio.sleep(_LOOK_SECONDS)


async def _configured(core: Core) -> dict[str, _Place]:
    """Return every target whose row is authentic, by the row's key."""
    rows, broken = await core.authority.everything(ENGINE_CONFIGS)
    found: dict[str, _Place] = {}
    for row in rows:
        mount, engine = await core.mounts.by_uuid(row.key.split("/")[0]) or (None, None)
        rule = engine.stray_rule(row) if isinstance(engine, ReconciledEngine) else None
        if mount is not None and isinstance(engine, ReconciledEngine) and rule is not None:
            found[row.key] = _Place(key=row.key, mount=mount, engine=engine, rule=rule)
    if not broken:
        await stray_checks.enter(core.database, list(found))
    return found


async def _search(core: Core, place: _Place) -> None:
    """Search one target, and note what was found, or why it could not be searched."""
    breaker = targets_of(core).breakers.get(f"{place.mount.uuid}/{place.rule.target}")
    if breaker is not None and breaker.rests(core.clock.monotonic()):
        await stray_checks.failed(core.database, place.key, "the target does not answer", _AGAIN_SECONDS)
        return
    try:
        async with asyncio.timeout(_SEARCH_SECONDS):
            found = list(await place.engine.strays(core, place.mount.uuid, place.rule.target))
            removed = await _removed(core, place, found) if place.rule.remove and found else set()
    except Sealed:
        raise
    except (SecretHubError, TimeoutError) as exc:
        why = (exc.message if isinstance(exc, SecretHubError) else "") or "it did not answer in time"
        _log.warning("%s could not be searched for strays: %s", place.path, why)
        away = isinstance(exc, Unavailable | TimeoutError)
        # Whoever refuses, such as AWS for want of a right, does so in a moment, too.
        pause = _AGAIN_SECONDS if away else place.rule.seconds
        await stray_checks.failed(core.database, place.key, why[:_REASON], pause)
        return
    except Exception as exc:  # noqa: BLE001 - told below
        # One engine's mistake must not keep others' targets from being searched.
        _log.exception("%s could not be searched for strays", place.path)
        await stray_checks.failed(
            core.database, place.key, f"the engine failed: {type(exc).__name__}", place.rule.seconds
        )
        return
    left = [name for name in found if name not in removed]
    if left:
        _log.warning("%s: %d users of this cluster have no lease", place.path, len(left))
        await _note(core, place, "found", {"strays": len(left), "names": left[:_TOLD]})
    await stray_checks.done(core.database, place.key, left)


async def _removed(core: Core, place: _Place, found: Sequence[str]) -> set[str]:
    """Remove strays, and return those that are gone; the ledger has them before and afterwards."""
    names = found[:_TOLD]
    await _note(core, place, "begun", {"names": names})
    failed = await place.engine.remove_strays(core, place.mount.uuid, place.rule.target, names)
    gone = [name for name in names if name not in failed]
    await _note(core, place, "removed", {"names": gone, "failed": sorted(failed)})
    return set(gone)


async def _note(core: Core, place: _Place, outcome: Outcome, detail: dict[str, object]) -> None:
    await note(core, operation=_OPERATION, path=place.path, actor="system", outcome=outcome, detail=detail)


async def _tell(core: Core, places: dict[str, _Place]) -> None:
    """Set the metric of what was found in the whole cluster."""
    core.metrics.strays.clear()
    for key, number in (await stray_checks.counts(core.database)).items():
        if (place := places.get(key)) is not None:
            core.metrics.strays.labels(place.mount.path, place.rule.target).set(number)
