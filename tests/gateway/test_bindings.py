"""Policies bound to tokens, roles and agents: resolved at each decision, given by few."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from authority_core import Running
from enrolled_hosts import Host, certificate_of, enrolling_hub, host_of, read, refused, shared_hub, sql

from secrethub.errors import Conflict, InvalidRequest, NotFound, PermissionDenied
from tests.gateway.behind import mount_id
from tests.gateway.conftest import SHARING, Node, native

__all__ = ["shared_hub"]  # the fixture

OTHER = native("secrets/other/**", capabilities=("read", "list"))
BIND = "sys/policies/bindings/other"


@pytest.fixture
async def hub(database_url: str, tmp_path: Path) -> AsyncIterator[Running]:
    """One process with a policy ``other`` that nobody has, and what it lets read."""
    async with enrolling_hub(database_url, tmp_path) as started:
        await started.ask("write", "sys/policies/acl/other", {"policy": OTHER})
        await started.ask("write", "secret/data/other/db", {"data": {"password": "canary-2"}})
        yield started


async def made(hub: Running, **body: Any) -> tuple[str, str]:
    """Make a token; return it and its accessor."""
    answer = await hub.ask("write", "auth/token/create", body)
    assert answer.auth is not None
    return answer.auth.client_token, answer.auth.accessor


async def may(hub: Running, **who: Any) -> bool:
    """Tell whether somebody may read what ``other`` lets read."""
    try:
        await hub.ask("read", "secret/data/other/db", **who)
    except PermissionDenied:
        return False
    return True


async def test_a_token(hub: Running) -> None:
    """What is bound to a token holds from the next request on, until it is taken away."""
    token, accessor = await made(hub, policies=["default"])
    neighbour, _ = await made(hub, policies=["default"])
    assert not await may(hub, token=token)
    for _ in range(2):
        await hub.ask("write", BIND, {"accessor": accessor})
        assert await may(hub, token=token)
        assert not await may(hub, token=neighbour)
        told = await hub.data("read", "auth/token/lookup-self", token=token)
        assert (told["policies"], told["identity_policies"]) == (["default"], ["other"])
        can = await hub.data("write", "sys/capabilities-self", {"path": ["secrets/other/x"]}, token=token)
        assert can["capabilities"] == ["list", "read"]
    for _ in range(2):
        await hub.ask("write", f"{BIND}/remove", {"accessor": accessor})
        assert not await may(hub, token=token)
    assert "identity_policies" not in await hub.data("read", "auth/token/lookup-self", token=token)


async def test_a_role_with_everything_that_logged_in_by_it(hub: Running) -> None:
    """What is bound to a role holds for its tokens and agents, earlier ones too, and for no other role's."""
    host = await host_of(hub, "web")
    agent = certificate_of(await host.enroll())
    stranger = await hub.login(*await hub.role("stranger", "enrolling"))
    assert not await may(hub, token=host.token)
    assert not await may(hub, agent=agent)
    await hub.ask("write", BIND, {"role": "web"})
    assert await may(hub, token=host.token)
    assert await may(hub, agent=agent)
    assert not await may(hub, token=stranger)
    await hub.ask("write", f"{BIND}/remove", {"role": "web"})
    assert not await may(hub, token=host.token)
    assert not await may(hub, agent=agent)


async def test_an_agent(hub: Running) -> None:
    """What is bound to an agent holds for it alone, beside its role's policies, until it is revoked."""
    first = await (one := await host_of(hub, "web")).enroll()
    two = Host(hub=hub, token=one.token)
    second = certificate_of(await two.enroll("web-2"))
    agent = certificate_of(first)
    await hub.ask("write", BIND, {"agent": first["agent_id"]})
    assert await may(hub, agent=agent)
    assert not await may(hub, agent=second)
    assert await read(hub, agent) == "canary-1"
    await hub.ask("write", f"agents/{first['agent_id']}/revoke", {})
    await refused(hub, agent)
    assert await sql(hub, "SELECT 1 FROM bindings") == []
    await hub.ask("write", f"agents/{first['agent_id']}/approve", {})
    again = certificate_of(await one.enroll())
    assert await read(hub, again) == "canary-1"
    assert not await may(hub, agent=again)


async def test_a_user(hub: Running) -> None:
    """What is bound to a user holds for all logins of that user, not for one made anew under the name."""

    async def entered(name: str, mount: str = "auth/userpass") -> str:
        answer = await hub.ask("write", f"{mount}/login/{name}", {"password": "canary"}, token=None)
        assert answer.auth is not None
        return answer.auth.client_token

    for name in ("ada", "eve"):
        await hub.ask("write", f"auth/userpass/users/{name}", {"password": "canary"})
    ada, eve = await entered("ada"), await entered("eve")
    await hub.ask("write", BIND, {"user": "Ada"})
    assert await may(hub, token=ada)
    assert await may(hub, token=await entered("ada"))
    assert not await may(hub, token=eve)
    # A role of the same name is somebody else, and so is a user of another mount.
    role = await hub.login(*await hub.role("ada", "enrolling"))
    assert not await may(hub, token=role)
    await hub.ask("write", "sys/auth/people", {"type": "userpass"})
    await hub.ask("write", "auth/people/users/ada", {"password": "canary"})
    other = await entered("ada", "auth/people")
    assert not await may(hub, token=other)
    await hub.ask("write", BIND, {"user": "people/ada"})
    assert await may(hub, token=other)
    await hub.ask("write", f"{BIND}/remove", {"user": "ada"})
    assert not await may(hub, token=ada)
    assert await may(hub, token=other)
    await hub.ask("delete", "sys/auth/people")
    assert await sql(hub, "SELECT 1 FROM bindings") == []
    await hub.ask("write", BIND, {"user": "ada"})
    await hub.ask("delete", "auth/userpass/users/ada")
    assert await sql(hub, "SELECT 1 FROM bindings") == []
    await hub.ask("write", "auth/userpass/users/ada", {"password": "canary"})
    await hub.ask("write", BIND, {"user": "ada"})
    assert not await may(hub, token=ada)
    assert await may(hub, token=await entered("ada"))


async def test_what_is_bound_is_not_passed_on(hub: Running) -> None:
    """Children of a token do not have what is bound to it, by no way of asking for it."""
    await hub.ask(
        "write", "sys/policies/acl/maker", {"policy": native("auth/token/create", capabilities=("update",))}
    )
    token, accessor = await made(hub, policies=["maker"])
    await hub.ask("write", BIND, {"accessor": accessor})
    answer = await hub.ask("write", "auth/token/create", {}, token=token)
    assert answer.auth is not None
    assert answer.auth.policies == ("default", "maker")
    assert not await may(hub, token=answer.auth.client_token)
    with pytest.raises(InvalidRequest, match="subset of parent: other"):
        await hub.ask("write", "auth/token/create", {"policies": ["other"]}, token=token)
    # What it has by itself as well stays its own.
    both, accessor = await made(hub, policies=["maker", "other"])
    await hub.ask("write", BIND, {"accessor": accessor})
    await hub.ask("write", "auth/token/create", {"policies": ["other"]}, token=both)


async def test_metadata_that_pretends_to_be_a_logins(hub: Running) -> None:
    """Whoever makes a token with the metadata of a role's login does not get what is bound to the role."""
    host = await host_of(hub, "web")
    await hub.ask("write", BIND, {"role": "web"})
    honest = (await hub.data("read", "auth/token/lookup-self", token=host.token))["meta"]
    assert honest["role_name"] == "web"
    forged, _ = await made(hub, policies=["default"], meta=honest)
    assert not await may(hub, token=forged)
    await hub.ask("write", "auth/token/roles/r", {"allowed_policies": ["default"], "path_suffix": "login"})
    answer = await hub.ask("write", "auth/token/create/r", {"meta": honest})
    assert answer.auth is not None
    assert not await may(hub, token=answer.auth.client_token)


async def test_a_subject_that_ends(hub: Running) -> None:
    """Bindings go with their token or role, and a role made anew under the name has none."""
    token, accessor = await made(hub, policies=["default"])
    await hub.ask("write", BIND, {"accessor": accessor})
    await hub.ask("write", "auth/token/revoke", {"token": token})
    assert await sql(hub, "SELECT 1 FROM bindings") == []
    short, accessor = await made(hub, policies=["default"], ttl="5m")
    await hub.ask("write", BIND, {"accessor": accessor})
    await hub.ask("write", "auth/token/revoke-orphan", {"token": short})
    assert await sql(hub, "SELECT 1 FROM bindings") == []
    host = await host_of(hub, "web")
    await hub.ask("write", BIND, {"role": "web"})
    (kept,) = await sql(hub, "SELECT key FROM bindings")
    assert kept["key"] == f"approle/{await mount_id(hub.url)}/web"
    await hub.ask("delete", "auth/approle/role/web")
    assert await sql(hub, "SELECT 1 FROM bindings") == []
    anew = await hub.login(*await hub.role("web", "enrolling"))
    assert not await may(hub, token=anew)
    assert not await may(hub, token=host.token)
    # Tokens of the former role of that name are not those of the new one.
    await hub.ask("write", BIND, {"role": "web"})
    assert await may(hub, token=anew)
    assert not await may(hub, token=host.token)


async def test_what_is_told(hub: Running) -> None:
    """Bindings are told by policy and by subject, and the outcome entry holds the row that was written."""
    token, accessor = await made(hub, policies=["default"], display_name="ci")
    for call in ("read", "list"):
        with pytest.raises(NotFound):
            await hub.ask(call, BIND if call == "read" else "sys/policies/bindings")  # type: ignore[arg-type]
    host = await host_of(hub, "web")
    agent_id = (await host.enroll())["agent_id"]
    for body in ({"accessor": accessor}, {"role": "web"}, {"agent": agent_id}):
        await hub.ask("write", BIND, body)
        await hub.ask("write", "sys/policies/bindings/enrolling", body)
        assert (await hub.data("write", "sys/policies/bound", body))["policies"] == ["enrolling", "other"]
    listed = await hub.data("list", "sys/policies/bindings")
    assert listed["key_info"] == {"enrolling": {"subjects": 3}, "other": {"subjects": 3}}
    subjects = (await hub.data("read", BIND))["subjects"]
    assert [(one["kind"], one["name"]) for one in subjects] == [
        ("agent", agent_id),
        ("approle", "web"),
        ("token", "token-ci"),
    ]
    assert subjects[2]["accessor"] == accessor
    entries = await sql(
        hub,
        "SELECT path, detail FROM audit_entries WHERE operation = 'sys.bindings.bind' AND kind = 'outcome'",
    )
    assert any(f"agent/{agent_id}" in entry["detail"] for entry in entries)
    assert all("written" in entry["detail"] for entry in entries)
    everything = str(await sql(hub, "SELECT * FROM audit_entries WHERE operation LIKE 'sys.bindings.%'"))
    assert accessor not in everything
    assert token not in everything


@SHARING
@pytest.mark.parametrize(
    ("path", "body"),
    [
        (BIND, {}),
        (BIND, {"role": "web", "agent": "x"}),
        (BIND, {"role": "web", "policies": ["root"]}),
        (BIND, {"role": "nobody"}),
        (BIND, {"role": "../web"}),
        (BIND, {"role": 1}),
        (BIND, {"cert": "nobody"}),
        (BIND, {"cert": "../approle/web"}),
        (BIND, {"cert": "web", "role": "web"}),
        (BIND, {"user": "nobody"}),
        (BIND, {"user": "../userpass/ada"}),
        (BIND, {"user": "ada", "role": "web"}),
        (BIND, {"agent": "web-1"}),
        (BIND, {"agent": "6f1c0c1e-0000-4000-8000-000000000000"}),
        (BIND, {"accessor": "x"}),
        (BIND, {"token": "x"}),
        ("sys/policies/bindings/root", {"role": "web"}),
        ("sys/policies/bindings/response-wrapping", {"role": "web"}),
        ("sys/policies/bindings/nobody-wrote-it", {"role": "web"}),
        ("sys/policies/bindings/bad name", {"role": "web"}),
    ],
)
async def test_what_cannot_be_bound(shared_hub: Running, path: str, body: dict[str, Any]) -> None:
    """Anything that is not one living subject and one written policy is refused, and nothing is kept."""
    await shared_hub.ask("write", "sys/policies/acl/other", {"policy": OTHER})
    await shared_hub.role("web", "enrolling")
    with pytest.raises((InvalidRequest, Conflict)):
        await shared_hub.ask("write", path, body)
    assert await sql(shared_hub, "SELECT 1 FROM bindings") == []


async def test_wrapping_tokens_and_too_many(hub: Running) -> None:
    """Nothing is bound to what only opens an answer, and no subject collects policies without end."""
    kept = await hub.ask("read", "secret/data/app/db", wrap_ttl=300)
    assert kept.wrap_info is not None
    with pytest.raises(InvalidRequest, match="wrapping"):
        await hub.ask("write", BIND, {"accessor": kept.wrap_info.accessor})
    await hub.role("web", "enrolling")
    for number in range(64):
        await hub.ask("write", f"sys/policies/acl/p{number}", {"policy": OTHER})
        await hub.ask("write", f"sys/policies/bindings/p{number}", {"role": "web"})
    with pytest.raises(InvalidRequest, match="at most 64"):
        await hub.ask("write", BIND, {"role": "web"})


async def test_nobody_raises_himself(node: Node) -> None:
    """Without sudo nothing is bound, and with it only policies that the path of the right names."""
    call = node.call
    for name in ("web-read", "strong"):
        await call("PUT", f"sys/policies/acl/{name}", json={"policy": OTHER})
    attacks = {
        "all": native(
            "sys/policies/bindings/**",
            "sys/policies/bound",
            capabilities=("read", "update", "list", "create"),
        ),
        "delegate": native(
            "sys/policies/bindings/web-*",
            "sys/policies/bindings/web-*/remove",
            capabilities=("update", "sudo"),
        ),
        "writer": native("auth/token/**", "secrets/**", capabilities=("*",)),
    }
    for name, policy in attacks.items():
        written = await call("PUT", f"sys/policies/acl/{name}", json={"policy": policy})
        assert written.status_code == 204
        made = (await call("POST", "auth/token/create", json={"policies": [name]})).json()["auth"]
        token, me = made["client_token"], {"accessor": made["accessor"]}
        right = name == "delegate"
        for path, expected in (
            ("web-read", right),
            ("web-read/remove", right),
            ("strong", False),
            ("STRONG", False),
            ("root", False),
            ("default", False),
        ):
            answer = await call("POST", f"sys/policies/bindings/{path}", token, json=me)
            assert answer.status_code == (204 if expected else 403), (name, path, answer.text)
        for method, path in (("LIST", "bindings"), ("GET", "bindings/strong"), ("POST", "bound")):
            answer = await call(method, f"sys/policies/{path}", token, json=me)
            assert answer.status_code == 403, (name, path)
    assert (await call("POST", "sys/policies/bindings/strong", "", json={"role": "x"})).status_code == 403
