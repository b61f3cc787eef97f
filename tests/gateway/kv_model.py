"""What key/value secrets are, as a model: one step after the other, with no clock, cache or database."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from secrethub.engines.kv.merge_patch import merged
from secrethub.wire.durations import format_go_duration

NEVER = -1
"""In place of seconds in the store's settings: no version ends by itself."""

METADATA = (
    "current_version",
    "max_versions",
    "cas_required",
    "delete_version_after",
    "oldest_version",
    "versions",
)
"""What metadata tells, of a version whether it has a time of deletion and whether it is destroyed."""


@dataclass(frozen=True)
class Store:
    """Settings of the store."""

    keep: int = 0
    cas_required: bool = False
    after: int = 0


@dataclass(frozen=True)
class Version:
    """One version; ``deleted_at`` may be in the future."""

    value: dict[str, Any]
    deleted_at: int | None = None
    destroyed: bool = False

    def gone(self, now: int) -> bool:
        """Whether it cannot be read."""
        return self.destroyed or (self.deleted_at is not None and self.deleted_at <= now)


@dataclass(frozen=True)
class Secret:
    """A secret and its own settings."""

    current: int = 0
    keep: int = 0
    cas_required: bool = False
    after: int = 0
    versions: Mapping[int, Version] = field(default_factory=dict)

    def ends(self, store: Store, now: int) -> int | None:
        """When a version that is made, or brought back, now ends by itself."""
        given = [seconds for seconds in (self.after, store.after) if seconds]
        return None if not given or store.after == NEVER else now + min(given)

    def written(self, value: dict[str, Any], store: Store, now: int) -> Secret:
        """The secret with one more version."""
        current = self.current + 1
        least = current - (self.keep or store.keep or 10)
        kept = {number: one for number, one in self.versions.items() if number > least}
        made = {current: Version(value, self.ends(store, now))}
        return replace(self, current=current, versions=kept | made)

    def readable(self, number: int, now: int) -> dict[str, Any] | None:
        """A version's value, if it has one."""
        version = self.versions.get(number)
        return None if version is None or version.gone(now) else version.value


@dataclass(frozen=True)
class Step:
    """One request: what is to be done, and with which numbers."""

    verb: str
    value: dict[str, Any] = field(default_factory=dict)
    cas: int | None = None
    numbers: tuple[int, ...] = ()

    @property
    def request(self) -> tuple[str, str, str, dict[str, Any] | None]:
        """The method, the endpoint, the query and the body."""
        options = {} if self.cas is None else {"options": {"cas": self.cas}}
        match self.verb:
            case "write":
                return "POST", "data", "", {"data": self.value, **options}
            case "patch":
                return "PATCH", "data", "", {"data": self.value, **options}
            case "rollback":
                return "POST", "rollback", "", {"version": self.numbers[0], **options}
            case "read":
                return "GET", "data", "".join(f"?version={number}" for number in self.numbers[:1]), None
            case "compare":
                return "GET", "compare", f"?from={self.numbers[0]}&to={self.numbers[-1]}", None
            case "delete-newest":
                return "DELETE", "data", "", None
            case "metadata":
                return "GET", "metadata", "", None
            case "settings":
                return "POST", "metadata", "", self.value
            case "remove":
                return "DELETE", "metadata", "", None
        return "POST", self.verb, "", {"versions": list(self.numbers)}


def done(secret: Secret | None, step: Step, store: Store, now: int) -> tuple[str, Secret | None]:
    """Return what a step is answered with, as :func:`shown` has it, and the secret after it."""
    match step.verb:
        case "write" | "patch" | "rollback":
            return _version_made(secret, step, store, now)
        case "read":
            return _read(secret, step, now), secret
        case "compare":
            return _compared(secret, step, now), secret
        case "metadata":
            return _metadata(secret), secret
        case "settings":
            own = replace(secret or Secret(), **_own(step.value))
            # What the store demands, a secret cannot take back: it is carried out, with a warning.
            warned = store.cas_required and step.value.get("cas_required") is False
            return shown(200 if warned else 204), own
        case "remove":
            return shown(204), None
    return shown(204), None if secret is None else _states_changed(secret, step, store, now)


def shown(status: int, *told: Any) -> str:
    """Return an answer in a form in which 1, 1.0 and true are three things."""
    return json.dumps([status, *told], sort_keys=True)


def _version_made(secret: Secret | None, step: Step, store: Store, now: int) -> tuple[str, Secret | None]:
    if secret is None and step.verb != "write":
        return shown(404), secret
    before = secret or Secret()
    if step.cas is None:
        passes = not (before.cas_required or store.cas_required)
    else:
        passes = step.cas == before.current
    if not passes:
        return shown(400), secret
    number = step.numbers[0] if step.verb == "rollback" else before.current
    old = before.readable(number, now)
    if step.verb != "write" and old is None:
        return shown(404), secret
    value = {"write": step.value, "patch": merged(old, step.value), "rollback": old}[step.verb]
    after = before.written(value, store, now)
    return shown(200, after.current), after


def _read(secret: Secret | None, step: Step, now: int) -> str:
    number = step.numbers[0] if step.numbers else 0 if secret is None else secret.current
    version = None if secret is None else secret.versions.get(number)
    if version is None:
        return shown(404)
    value = None if version.gone(now) else version.value
    return shown(404 if version.gone(now) else 200, value, version.deleted_at is not None, version.destroyed)


def _metadata(secret: Secret | None) -> str:
    if secret is None:
        return shown(404)
    oldest = min(secret.versions, default=1)
    told = (
        secret.current,
        secret.keep,
        secret.cas_required,
        format_go_duration(secret.after),
        oldest if oldest > 1 else 0,
        {str(number): [one.deleted_at is not None, one.destroyed] for number, one in secret.versions.items()},
    )
    return shown(200, dict(zip(METADATA, told, strict=True)))


def _compared(secret: Secret | None, step: Step, now: int) -> str:
    old, new = ((secret or Secret()).readable(step.numbers[place], now) for place in (0, -1))
    if old is None or new is None:
        return shown(404)
    common = old.keys() & new.keys()
    changed = {name for name in common if shown(0, old[name]) != shown(0, new[name])}
    return shown(
        200,
        {name: value for name, value in new.items() if name not in common},
        {name: value for name, value in old.items() if name not in common},
        {name: {"from": old[name], "to": new[name]} for name in changed},
        sorted(common - changed),
    )


def _own(given: Mapping[str, Any]) -> dict[str, Any]:
    names = {"max_versions": "keep", "cas_required": "cas_required", "delete_version_after": "after"}
    return {names[name]: value for name, value in given.items()}


def _states_changed(secret: Secret, step: Step, store: Store, now: int) -> Secret:
    numbers = (secret.current,) if step.verb == "delete-newest" else step.numbers
    versions = dict(secret.versions)
    for number in numbers:
        version = versions.get(number)
        if version is None or version.destroyed:
            continue
        if step.verb == "destroy":
            versions[number] = replace(version, destroyed=True)
        elif step.verb == "undelete":
            ends = None if version.deleted_at is None else secret.ends(store, now)
            versions[number] = replace(version, deleted_at=ends)
        elif not version.gone(now):
            versions[number] = replace(version, deleted_at=now)
    return replace(secret, versions=versions)
