"""The kinds of rotators, and how options are told from secrets."""

from __future__ import annotations

from collections.abc import Mapping

from secrethub.engines.rotators.aws import AwsKeyRotator
from secrethub.engines.rotators.command import CommandRotator
from secrethub.engines.rotators.database import DatabasePasswordRotator, DatabaseTwoUsersRotator
from secrethub.engines.rotators.generated import GeneratedRotator
from secrethub.engines.rotators.rotator import Rotator
from secrethub.engines.rotators.webhook import WebhookRotator
from secrethub.errors import InvalidRequest

_MAX_OPTION = 8192

_KINDS: tuple[Rotator, ...] = (
    GeneratedRotator(),
    DatabasePasswordRotator(),
    DatabaseTwoUsersRotator(),
    WebhookRotator(),
    AwsKeyRotator(),
    CommandRotator(),
)
ROTATORS: Mapping[str, Rotator] = {rotator.kind: rotator for rotator in _KINDS}


def rotator_of(kind: str) -> Rotator:
    """Return a kind of rotator.

    Raises:
        InvalidRequest: there is none of this name.
    """
    rotator = ROTATORS.get(kind)
    if rotator is None:
        raise InvalidRequest(f"rotator is one of {', '.join(ROTATORS)}")
    return rotator


def checked_options(
    rotator: Rotator, given: Mapping[str, str | int | bool], kept: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Return options that may be shown, and those that may not.

    Args:
        rotator: the kind.
        given: as they came.
        kept: secrets that were given before; they stay unless they are given anew.

    Raises:
        InvalidRequest: one is unknown, or the rotator cannot work with them.
    """
    options: dict[str, str] = {}
    secrets = {name: value for name, value in kept.items() if name in rotator.secrets}
    for name, value in given.items():
        text = str(value).lower() if isinstance(value, bool) else str(value)
        if len(text) > _MAX_OPTION or "\0" in text:
            raise InvalidRequest(f"option {name} is too long, or holds a NUL")
        if name in rotator.secrets:
            secrets[name] = text
        elif name in rotator.options:
            options[name] = text
        else:
            known = ", ".join(sorted(rotator.options | rotator.secrets))
            raise InvalidRequest(f"rotator {rotator.kind} has the options {known}")
    rotator.check(options, secrets)
    return options, secrets
