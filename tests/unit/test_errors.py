"""The error tree: it survives pickling, explains itself, and its codes are stable."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

import pytest

from secrethub import errors
from secrethub.errors import (
    IntegrityFailure,
    InvalidPath,
    InvalidRequest,
    PermissionDenied,
    SecretHubError,
    TooManyRequests,
    WrongShare,
)


def tree(root: type[SecretHubError]) -> Iterator[type[SecretHubError]]:
    """Yield ``root`` and every class below it."""
    yield root
    for child in root.__subclasses__():
        yield from tree(child)


CLASSES = [kind for kind in tree(SecretHubError) if kind.__module__ == errors.__name__]
FILLED: list[SecretHubError] = [
    InvalidRequest("field ttl: not a duration"),
    WrongShare("given already", "duplicate"),
    PermissionDenied("no policy grants it"),
    TooManyRequests("slow down", 2.5),
    IntegrityFailure("policies", "app", "bad MAC"),
]


def fields(error: SecretHubError) -> dict[str, Any]:
    return {**vars(error), "args": error.args, "text": str(error), "code": error.code}


@pytest.mark.parametrize("error", [*(kind() for kind in CLASSES), *FILLED], ids=repr)
def test_errors_survive_pickling(error: SecretHubError) -> None:
    """An error that crossed a process has its class, message, fields and code, by every protocol."""
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        arrived = pickle.loads(pickle.dumps(error, protocol))
        assert type(arrived) is type(error)
        assert fields(arrived) == fields(error)
        twice = pickle.loads(pickle.dumps(arrived, protocol))
        assert fields(twice) == fields(error)


@pytest.mark.parametrize("kind", CLASSES)
def test_no_error_is_silent(kind: type[SecretHubError]) -> None:
    """Even an error raised without a word has a text."""
    assert str(kind()).strip()
    assert str(kind("")).strip()


def test_codes_are_unique_and_stable_words() -> None:
    """Each class has a code of its own, in lower case, and spells it itself."""
    codes = [kind.code for kind in CLASSES]
    assert len(set(codes)) == len(codes)
    assert all(code.replace("_", "").isalpha() and code.islower() for code in codes)
    assert all("code" in vars(kind) for kind in CLASSES)


def test_the_module_names_every_class() -> None:
    """The tree in the module's docstring lacks no class."""
    assert errors.__doc__ is not None
    assert [kind.__name__ for kind in CLASSES if kind.__name__ not in errors.__doc__] == []


def test_special_cases_are_caught_by_the_general_one() -> None:
    """Whoever handles invalid input also handles bad paths and wrong shares."""
    assert issubclass(InvalidPath, InvalidRequest)
    assert issubclass(WrongShare, InvalidRequest)


def test_fields_are_kept() -> None:
    """Fields are attributes and positional arguments alike."""
    share, throttled, broken = FILLED[1], FILLED[3], FILLED[4]
    assert isinstance(share, WrongShare)
    assert share.reason == "duplicate"
    assert isinstance(throttled, TooManyRequests)
    assert throttled.retry_after == 2.5
    assert isinstance(broken, IntegrityFailure)
    assert (broken.table, broken.key, broken.reason) == ("policies", "app", "bad MAC")
    assert str(broken) == "policies row app: bad MAC"
