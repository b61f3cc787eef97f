"""The HTTP client against a transport that answers without sockets."""

from __future__ import annotations

import asyncio
import json
import logging
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from secrethub.client import ApiError, AsyncClient, BadSettings, Client, ClientSettings, NotReached
from secrethub.client import messages as build
from secrethub.client.retry import pause
from secrethub.client.settings import parse_address, parse_fingerprint
from secrethub.sensitive import Sensitive

TOKEN = "hvs.CanaryCanaryCanaryCanary1234"
Handler = Callable[[httpx2.Request], httpx2.Response]


def envelope(data: Any = None, **more: Any) -> dict[str, Any]:
    keys = ("lease_id", "renewable", "lease_duration", "wrap_info", "warnings", "auth")
    return {"request_id": "r-1", **dict.fromkeys(keys), "data": data, **more}


def client(handler: Handler, **settings: Any) -> Client:
    settings.setdefault("token", Sensitive(TOKEN))
    return Client(ClientSettings(**settings), transport=httpx2.MockTransport(handler))


def failing(times: int, answer: httpx2.Response, seen: list[httpx2.Request]) -> Handler:
    def handle(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return answer if len(seen) <= times else httpx2.Response(200, json=envelope({"n": len(seen)}))

    return handle


def test_read_sends_the_token_in_its_header_only_and_returns_the_data() -> None:
    """A read carries the token in X-Vault-Token, not in its URL, and answers the envelope's data."""
    seen: list[httpx2.Request] = []

    def handle(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(200, json=envelope({"data": {"password": "x"}}))

    with client(handle) as api:
        reply = api.read("secrets/prod/my db", version=2)
    assert reply.data == {"data": {"password": "x"}}
    assert reply.request_id == "r-1"
    assert str(seen[0].url) == "http://127.0.0.1:4000/v1/secrets/prod/my%20db?version=2"
    assert seen[0].headers["x-vault-token"] == TOKEN
    assert TOKEN not in str(seen[0].url)


async def test_a_patch_is_a_merge_patch() -> None:
    """Both clients send a change of parts as Vault demands it, with its nulls, and once."""
    seen: list[httpx2.Request] = []
    failed = httpx2.Response(503, json={"errors": ["later"], "code": "unavailable"})
    settings = ClientSettings(token=Sensitive(TOKEN))
    with client(failing(1, failed, seen)) as api, pytest.raises(ApiError):
        api.patch("secrets/a", {"data": {"old": None}})
    transport = httpx2.MockTransport(failing(0, failed, seen))
    async with AsyncClient(settings, transport=transport) as other:
        await other.patch("secrets/a", {"data": {"old": None}})
    assert [request.method for request in seen] == ["PATCH"] * 2
    assert {request.headers["content-type"] for request in seen} == {"application/merge-patch+json"}
    assert [json.loads(request.content) for request in seen] == [{"data": {"old": None}}] * 2


def test_list_uses_the_query_that_every_door_understands() -> None:
    """A listing is a GET with list=true and answers the names."""

    def handle(request: httpx2.Request) -> httpx2.Response:
        assert (request.method, request.url.query) == ("GET", b"list=true")
        return httpx2.Response(200, json=envelope({"keys": ["a", "b/"]}))

    with client(handle) as api:
        assert api.list("secrets/prod") == ("a", "b/")


def test_answers_without_envelope_and_without_content_are_understood() -> None:
    """A bare answer is its own data, and 204 is an empty one."""
    answers = iter([httpx2.Response(200, json={"sealed": True}), httpx2.Response(204)])
    with client(lambda _request: next(answers)) as api:
        assert api.read("sys/seal-status").data == {"sealed": True}
        assert api.write("sys/seal").data == {}


def test_errors_carry_status_code_messages_and_request_id() -> None:
    """A refused request raises ApiError with everything the server said, and survives pickling."""
    body = {"errors": ["permission denied"], "code": "permission_denied"}
    answer = httpx2.Response(403, json=body, headers={"x-request-id": "r-9"})
    with client(lambda _request: answer) as api, pytest.raises(ApiError) as caught:
        api.read("secrets/a")
    error = pickle.loads(pickle.dumps(caught.value))
    assert (error.status, error.code, error.errors) == (403, "permission_denied", ("permission denied",))
    assert error.request_id == "r-9"
    assert str(error) == "403 permission denied (request r-9)"


def test_a_deleted_version_keeps_its_metadata_in_the_error() -> None:
    """404 with data is an error that carries the data."""
    answer = httpx2.Response(404, json=envelope({"data": None, "metadata": {"version": 3}}))
    with client(lambda _request: answer) as api, pytest.raises(ApiError) as caught:
        api.read("secrets/a")
    assert caught.value.data == {"data": None, "metadata": {"version": 3}}


def test_a_page_that_is_not_json_is_named_as_such() -> None:
    """A web page where JSON was expected is an error, with or without an error status."""
    for status in (200, 502):
        answer = httpx2.Response(status, text="<html>gateway</html>")
        with client(lambda _request, a=answer: a, attempts=1) as api, pytest.raises(ApiError) as caught:
            api.read("sys/health")
        assert caught.value.status == status


def test_reads_are_tried_again_and_writes_never() -> None:
    """503 is passing for a read; a write is sent once."""
    answer = httpx2.Response(503, json={"errors": ["unavailable"], "code": "unavailable"})
    seen: list[httpx2.Request] = []
    with client(failing(2, answer, seen)) as api:
        assert api.read("secrets/a").data == {"n": 3}
    seen.clear()
    with client(failing(1, answer, seen)) as api, pytest.raises(ApiError):
        api.write("secrets/a", {"data": {}})
    assert len(seen) == 1


def test_a_sealed_server_is_not_asked_again() -> None:
    """Sealed needs a person, so the first answer is final."""
    seen: list[httpx2.Request] = []
    answer = httpx2.Response(503, json={"errors": ["Vault is sealed"], "code": "sealed"})
    with client(failing(9, answer, seen)) as api, pytest.raises(ApiError):
        api.read("secrets/a")
    assert len(seen) == 1


def test_redirects_are_not_followed() -> None:
    """A token is never carried to where a redirect points."""
    seen: list[httpx2.Request] = []
    answer = httpx2.Response(307, headers={"location": "https://elsewhere.example/v1/secrets/a"})
    with client(failing(9, answer, seen)) as api, pytest.raises(ApiError) as caught:
        api.read("secrets/a")
    assert (len(seen), caught.value.status) == (1, 307)


def test_a_lost_connection_says_whether_something_may_have_changed() -> None:
    """A refused connection sent nothing; a change that timed out may have been made; a read is none."""

    def refuse(_request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("refused")

    def hang(_request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ReadTimeout("slow")

    for handler, request, changed in (
        (refuse, build.write("secrets/a"), False),
        (hang, build.write("secrets/a"), True),
        (hang, build.read("secrets/a"), False),
    ):
        with client(handler, attempts=1) as api, pytest.raises(NotReached) as caught:
            api.send(request)
        assert caught.value.may_have_changed is changed


def test_nothing_that_is_shown_or_logged_holds_the_token_or_a_body(caplog: pytest.LogCaptureFixture) -> None:
    """The repr of settings, client, request and reply, and debug logs, are free of secrets."""
    caplog.set_level(logging.DEBUG)
    settings = ClientSettings(token=Sensitive(TOKEN))
    answer = httpx2.Response(200, json=envelope({"data": {"password": "canary-value"}}))
    with Client(settings, transport=httpx2.MockTransport(lambda _request: answer)) as api:
        request = build.write("secrets/a", {"data": {"password": "canary-value"}})
        shown = (
            f"{settings!r} {api!r} {request!r} {api.send(request)!r} {api._client().headers!r} {caplog.text}"
        )
    assert TOKEN not in shown
    assert "canary-value" not in shown


def test_lines_arrive_one_by_one() -> None:
    """A streamed answer is handed on line by line, and an error in its place is raised."""
    request = build.Request(method="POST", path="sys/audit/verify", body={}, accept="application/x-ndjson")
    answers = iter(
        [httpx2.Response(200, text='{"a":1}\n{"ok":true}\n'), httpx2.Response(403, json={"errors": []})]
    )
    with client(lambda _request: next(answers)) as api:
        with api.lines(request) as lines:
            assert [json.loads(line) for line in lines] == [{"a": 1}, {"ok": True}]
        with pytest.raises(ApiError), api.lines(request):
            pass


async def test_the_asyncio_client_does_the_same() -> None:
    """Reads, lists, writes, deletes and retries work alike with asyncio."""
    seen: list[httpx2.Request] = []
    answer = httpx2.Response(429, json={"errors": ["slow down"]}, headers={"retry-after": "0"})

    async def handle(request: httpx2.Request) -> httpx2.Response:
        await asyncio.sleep(0)
        return failing(1, answer, seen)(request)

    settings = ClientSettings(token=Sensitive(TOKEN))
    async with AsyncClient(settings, transport=httpx2.MockTransport(handle)) as api:
        assert (await api.read("secrets/a")).data == {"n": 2}
        assert (await api.write("secrets/a", {"data": {}})).data == {"n": 3}
        assert (await api.delete("secrets/a")).data == {"n": 4}
        assert await api.list("secrets/a") == ()
    assert [request.method for request in seen] == ["GET", "GET", "POST", "DELETE", "GET"]


@pytest.mark.parametrize("path", ["", "/", "secrets/../sys/seal", "secrets/."])
def test_paths_that_leave_the_api_are_refused_before_sending(path: str) -> None:
    """An empty path or a dot segment never reaches the wire."""
    with client(lambda _request: httpx2.Response(200)) as api, pytest.raises(BadSettings):
        api.read(path)


@pytest.mark.parametrize(
    "request_",
    [
        build.read("secrets/canary\udcff"),
        build.read("secret/search", q="canary\udcff"),
        build.write("secrets/a", {"data": {"k": "canary\ud800"}}),
        build.patch("secrets/a", {"data": {"canary\udcff": 1}}),
    ],
)
def test_what_is_not_unicode_is_refused_before_sending(request_: build.Request) -> None:
    """Bytes of another encoding in an argument, halves of surrogate pairs in JSON; none of it is shown."""
    with client(lambda _: pytest.fail("sent")) as api, pytest.raises(BadSettings) as caught:
        api.send(request_)
    assert "UTF-8" in str(caught.value)
    assert "canary" not in f"{caught.value} {caught.value.__cause__!r}"


@pytest.mark.parametrize("token", ["with space", "new\nline", "ünïcode", "x" * 9000])
def test_a_token_that_cannot_be_one_is_refused_without_showing_it(token: str) -> None:
    """Header injection through a token is impossible, and the message does not repeat it."""
    answer = httpx2.Response(200)
    with client(lambda _request: answer, token=Sensitive(token)) as api, pytest.raises(BadSettings) as caught:
        api.read("secrets/a")
    assert token not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("http://127.0.0.1:4000", "http://127.0.0.1:4000"),
        ("http://localhost:4000/", "http://localhost:4000"),
        ("http://[::1]:4000/v1", "http://[::1]:4000"),
        ("https://core.example.com", "https://core.example.com:443"),
        ("unix:///run/secrethub/agent.sock", "unix:///run/secrethub/agent.sock"),
    ],
)
def test_addresses_are_brought_into_one_form(address: str, url: str) -> None:
    """What a person writes becomes one canonical URL."""
    assert parse_address(address).url == url
    assert ClientSettings(address=address).endpoint.url == url


@pytest.mark.parametrize(
    "address",
    [
        "",
        "core:4443",
        "ftp://core",
        "https://",
        "https://user:secret@core:1",
        "https://core:4443/ui",
        "https://c:x",
    ],
)
def test_addresses_that_cannot_be_a_server_are_refused(address: str) -> None:
    """Anything else is refused with a message, and a password in it is not repeated."""
    with pytest.raises(BadSettings) as caught:
        parse_address(address)
    assert "secret" not in str(caught.value)


def test_plain_http_beyond_loopback_needs_an_explicit_word() -> None:
    """http:// to another host is refused unless asked for."""
    with pytest.raises(BadSettings, match="plain HTTP"):
        ClientSettings(address="http://core.example.com:4000")
    assert ClientSettings(address="http://core.example.com:4000", plain_http=True).endpoint.port == 4000


def test_environment_names_and_their_order() -> None:
    """SECRETHUB_ names come before Vault's, and those before the default and the stored token."""
    environ = {
        "VAULT_ADDR": "https://vault:8200",
        "VAULT_TOKEN": "hvs.vault",
        "VAULT_CACERT": "/vault.pem",
        "SECRETHUB_CA_SHA256": "AB:" * 31 + "AB",
    }
    settings = ClientSettings.from_environment(environ, token="hvs.stored")
    assert settings.endpoint.url == "https://vault:8200"
    assert settings.token is not None
    assert settings.token.reveal() == "hvs.vault"
    assert settings.ca_file == Path("/vault.pem")
    assert settings.ca_sha256 == "ab" * 32
    ours = {**environ, "SECRETHUB_ADDR": "https://core:4443", "SECRETHUB_TOKEN": "hvs.ours"}
    settings = ClientSettings.from_environment(ours)
    assert settings.endpoint.url == "https://core:4443"
    assert settings.token is not None
    assert settings.token.reveal() == "hvs.ours"
    settings = ClientSettings.from_environment({}, token="hvs.stored")
    assert settings.endpoint.url == "http://127.0.0.1:4000"
    assert settings.token is not None
    assert settings.token.reveal() == "hvs.stored"


def test_fingerprints_are_checked() -> None:
    """A pin is 64 hexadecimal digits in any usual spelling."""
    assert parse_fingerprint("sha256:" + "AB" * 32) == "ab" * 32
    with pytest.raises(BadSettings):
        parse_fingerprint("abcd")


def test_retry_pauses_grow_and_end() -> None:
    """Pauses grow with each attempt, honour Retry-After, and end with the attempts."""
    read, lost = build.read("secrets/a"), NotReached("lost")
    assert pause(read, lost, 1, 3, 1.0) == pytest.approx(0.2)
    assert pause(read, lost, 2, 3, 1.0) == pytest.approx(0.4)
    assert pause(read, lost, 3, 3, 1.0) is None
    assert pause(build.write("secrets/a"), lost, 1, 3, 1.0) is None
    assert pause(read, BadSettings("no"), 1, 3, 1.0) is None
    assert pause(read, ApiError(429, retry_after=2.0), 1, 3, 0.0) == pytest.approx(2.0)
    assert pause(read, ApiError(429, retry_after=60.0), 1, 3, 0.0) is None
    assert pause(read, ApiError(400), 1, 3, 0.0) is None
