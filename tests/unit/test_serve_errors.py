"""Errors become statuses by one table, and tell no more than they may."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from secrethub import errors
from secrethub.errors import SecretHubError
from serve.errors import STATUS, answer_error


def every_error(kind: type[SecretHubError] = SecretHubError) -> Iterator[type[SecretHubError]]:
    yield kind
    for below in kind.__subclasses__():
        # Agents' own protocol has an error that never meets HTTP.
        if below.__module__ == errors.__name__:
            yield from every_error(below)


@pytest.mark.parametrize("kind", sorted(set(every_error()), key=lambda kind: kind.__name__))
def test_every_error_has_a_status(kind: type[SecretHubError]) -> None:
    """No error of the tree is without a status of its own."""
    assert kind.code in STATUS
    status, body, _ = answer_error(kind(), "r")
    shown = json.loads(body)
    assert status == STATUS[kind.code]
    assert (shown["code"], shown["request_id"]) == (kind.code, "r")
    assert all(isinstance(text, str) for text in shown["errors"])


@pytest.mark.parametrize(
    ("exc", "status", "texts"),
    [
        (errors.PermissionDenied("token abc has expired"), 403, ["permission denied"]),
        (errors.NotFound("no policy is named 'x'"), 404, []),
        (errors.InvalidRequest("ttl is wrong"), 400, ["ttl is wrong"]),
        (errors.Sealed(), 503, ["Vault is sealed"]),
        (errors.IntegrityFailure("tokens", "k", "edited"), 500, ["internal error (integrity_failure)"]),
        (errors.DecryptionFailed("at kv 7"), 500, ["internal error (decryption_failed)"]),
        (ValueError("secret text"), 500, ["internal error"]),
        (KeyError("hvs.token"), 500, ["internal error"]),
        (errors.CasMismatch(), 400, ["check-and-set parameter did not match the current version"]),
        (errors.UnsupportedOperation("unsupported operation"), 405, ["unsupported operation"]),
        (errors.TooLarge("x"), 413, ["x"]),
        (errors.Unavailable("the database does not answer"), 503, ["the database does not answer"]),
    ],
)
def test_what_is_told(exc: BaseException, status: int, texts: list[str]) -> None:
    """Refusals of input say why; denials, missing things and defects do not."""
    given, body, headers = answer_error(exc, "r")
    assert (given, json.loads(body)["errors"], headers) == (status, texts, [])


@pytest.mark.parametrize(("seconds", "shown"), [(0.0, b"1"), (0.2, b"1"), (2.6, b"3"), (60.0, b"60")])
def test_retry_after(seconds: float, shown: bytes) -> None:
    """Who is throttled learns in whole seconds when to come back."""
    status, _, headers = answer_error(errors.TooManyRequests("slow", seconds), "r")
    assert status == 429
    assert headers == [(b"retry-after", shown)]
