"""Several versions at once: deleted, brought back, destroyed for good."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from secrethub.engines.answers import Nothing
from secrethub.engines.engine import EMPTY, Answer, Context, Operation
from secrethub.engines.kv.rules import deletion_time
from secrethub.engines.kv.store import change_state, detail_of, now_of, settings_of
from secrethub.errors import InvalidRequest
from secrethub.storage import kv

_MOST = 1000


class VersionsRequest(msgspec.Struct, frozen=True):
    """The versions that are meant."""

    versions: list[int | str] | None = None


def version_operations() -> tuple[Operation, ...]:
    """Return the operations on several versions."""
    return tuple(
        Operation(
            name=f"kv.{name}",
            method="write",
            pattern=f"{pattern}/{{path*}}",
            handler=handler,
            response=Nothing,
            capability="delete",
            request=VersionsRequest,
            changes=True,
            subject="path",
            plain=frozenset({"versions"}),
            summary=summary,
        )
        for name, pattern, handler, summary in (
            ("delete.versions", "delete", delete, "Delete versions softly."),
            ("undelete", "undelete", undelete, "Bring versions back that were deleted softly."),
            ("destroy", "destroy", destroy, "Remove versions for good."),
        )
    )


async def delete(context: Context, body: VersionsRequest) -> Answer:
    """Delete versions softly; those that are not there, or deleted, are left alone."""
    now = now_of(context)
    return await _each(
        context,
        body,
        now,
        lambda state, _: None if state.gone(now) else state._replace(deleted_at=now),
    )


async def undelete(context: Context, body: VersionsRequest) -> Answer:
    """Bring versions back; those that are not there, or destroyed, are left alone."""
    now, settings = now_of(context), settings_of(context)

    def back(state: kv.State, head: kv.Head) -> kv.State | None:
        # One that is to be deleted by itself has its whole time again, as in Vault.
        if state.destroyed or not state.deleted_at:
            return None
        return state._replace(deleted_at=deletion_time(head, settings, now))

    return await _each(context, body, now, back)


async def destroy(context: Context, body: VersionsRequest) -> Answer:
    """Remove versions for good."""
    return await _each(
        context,
        body,
        now_of(context),
        lambda state, _: None if state.destroyed else state._replace(destroyed=True),
        destroys=True,
    )


async def _each(
    context: Context,
    body: VersionsRequest,
    now: int,
    become: Callable[[kv.State, kv.Head], kv.State | None],
    *,
    destroys: bool = False,
) -> Answer:
    """Change the states of the versions that are meant, as ``become`` says."""
    meant = _numbers(body)
    changed: list[int] = []

    def alter(head: kv.Head | None) -> kv.Head | None:
        changed.clear()
        if head is None:
            return None
        states = {}
        for version in meant:
            state = head.state(version)
            new = None if state is None else become(state, head)
            if new is not None:
                states[version] = new
        changed.extend(states)
        return head.changed(states, now) if states else None

    head = await change_state(context, alter, destroyed=meant if destroys else ())
    return EMPTY if head is None else Answer(detail=detail_of(head, versions=changed))


def _numbers(body: VersionsRequest) -> list[int]:
    given = body.versions or []
    if not given:
        raise InvalidRequest("No version number provided")
    if len(given) > _MOST:
        raise InvalidRequest(f"at most {_MOST} versions at once")
    numbers = []
    for value in given:
        if isinstance(value, str) and (not value.isascii() or not value.isdigit() or len(value) > 9):
            raise InvalidRequest("versions are positive whole numbers")
        numbers.append(int(value))
    return sorted(set(numbers))
