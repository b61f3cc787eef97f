"""AppRole: who may log in, how often, from where, and what the token then has."""

from __future__ import annotations

import asyncio
import base64
from datetime import timedelta

import asyncpg
import pytest
import pytest_asyncio

from secrethub.engines.engine import Answer
from secrethub.errors import SecretHubError
from secrethub.ids import new_uuid
from tests.gateway.approle_steps import FAILED, from_address, login, role, secret_id
from tests.gateway.authority_core import MovingClock
from tests.gateway.conftest import ALONE, SHARING, Node, emptied, native

pytestmark = SHARING


@pytest_asyncio.fixture(loop_scope="module")
async def node(shared_node: Node) -> Node:
    """A node of all tests here, each of which finds nothing in its AppRole mount."""
    return await emptied(shared_node, "approle")


@pytest.fixture
def clock(own: Node) -> MovingClock:
    """The node's clock, which a test may move."""
    moving = MovingClock()
    own.process.core.clock = moving
    return moving


async def test_login_gives_the_roles_token(node: Node) -> None:
    """The token has the role's policies and lifetime, and tells role and metadata."""
    await node.call("POST", "secrets/app/db", json={"data": {"k": "v"}})
    await node.call("PUT", "sys/policies/acl/app", json={"policy": native("secrets/app/**")})
    role_id = await role(node, token_policies="App,app", token_ttl="20m", token_max_ttl="30m")
    made = await secret_id(node, metadata='{"host": "h1", "role_name": "other"}')
    auth = (await login(node, role_id, made["secret_id"])).json()["auth"]
    assert auth["policies"] == ["app", "default"]
    assert auth["lease_duration"] == 1200
    assert auth["renewable"] is True
    assert auth["orphan"] is True
    assert auth["metadata"] == {"host": "h1", "role_name": "app"}
    token = auth["client_token"]
    assert (await node.call("GET", "secrets/app/db", token)).status_code == 200
    assert (await node.call("GET", "secrets/other", token)).status_code == 403
    seen = (await node.call("GET", "auth/token/lookup-self", token)).json()["data"]
    assert seen["display_name"] == "approle-app"
    assert seen["path"] == "auth/approle/login"
    renewed = await node.call("POST", "auth/token/renew-self", token, json={"increment": "24h"})
    assert 1790 < renewed.json()["auth"]["lease_duration"] <= 1800


async def test_spellings_of_metadata(node: Node) -> None:
    """As in Vault, metadata is JSON or ``key=value`` in lower case, either in base64, too."""
    await role(node)
    for text, expected in (
        ("Host=H1, site = b ,,", {"host": "h1", "site": "b"}),
        (base64.b64encode(b"host=h1,site=b").decode(), {"host": "h1", "site": "b"}),
        (base64.b64encode(b'{"Host": "H1"}').decode(), {"Host": "H1"}),
        (' {"Host": "H=1, x"} ', {"Host": "H=1, x"}),
        ("a=2,a=1", {"a": "2"}),
        ("", {}),
        (" , ", {}),
    ):
        made = await secret_id(node, metadata=text)
        body = {"secret_id": made["secret_id"]}
        told = await node.call("POST", "auth/approle/role/app/secret-id/lookup", json=body)
        assert told.json()["data"]["metadata"] == expected, text


async def test_cidrs_are_bound_under_either_name(node: Node) -> None:
    """The older name of secret_id_bound_cidrs binds as the newer one does; two that differ are refused."""
    role_id = await role(node, bound_cidr_list="192.0.2.0/24,198.51.100.7")
    shown = (await node.call("GET", "auth/approle/role/app")).json()["data"]
    assert shown["secret_id_bound_cidrs"] == ["192.0.2.0/24", "198.51.100.7/32"]
    body = {"role_id": role_id, "secret_id": (await secret_id(node))["secret_id"]}
    assert isinstance(await from_address(node, "203.0.113.1", body), SecretHubError)
    assert isinstance(await from_address(node, "198.51.100.7", body), Answer)
    await role(node, bound_cidr_list=["10.0.0.0/8"], secret_id_bound_cidrs="10.0.0.0/8")
    both = {"bound_cidr_list": "10.0.0.0/8", "secret_id_bound_cidrs": ""}
    for wrong in (both, {"bound_cidr_list": "here"}):
        assert (await node.call("POST", "auth/approle/role/app", json=wrong)).status_code == 400
    shown = (await node.call("GET", "auth/approle/role/app")).json()["data"]
    assert shown["secret_id_bound_cidrs"] == ["10.0.0.0/8"]


async def test_what_would_narrow_a_role_is_not_dropped(node: Node) -> None:
    """A restriction that is not enforced here is refused, and its absence is no restriction."""
    for wrong in ({"enable_local_secret_ids": True}, {"token_strictly_bind_ip": "true"}):
        refused = await node.call("POST", "auth/approle/role/app", json=wrong)
        assert refused.status_code == 400, wrong
        assert min(wrong) in refused.json()["errors"][0]
    assert (await node.call("GET", "auth/approle/role/app")).status_code == 404
    await role(node, enable_local_secret_ids=False, token_strictly_bind_ip="false")


@ALONE
async def test_every_failed_login_says_the_same(own: Node, clock: MovingClock) -> None:
    """Unknown role, wrong, expired, used up, foreign and destroyed SecretIDs look alike."""
    role_id = await role(own)
    other_id = await role(own, "other")
    good = (await secret_id(own))["secret_id"]
    expired = (await secret_id(own, ttl="1m"))["secret_id"]
    used = (await secret_id(own, num_uses=1))["secret_id"]
    foreign = (await secret_id(own, "other"))["secret_id"]
    elsewhere = (await secret_id(own, cidr_list=["192.0.2.0/24"]))["secret_id"]
    assert (await login(own, role_id, used)).status_code == 200
    clock.ahead += timedelta(minutes=1)
    seen = set()
    for pair in (
        ("unknown", good),
        (new_uuid(), good),
        (role_id, new_uuid()),
        (role_id, "wrong"),
        (role_id, ""),
        ("", good),
        ("", ""),
        (role_id, expired),
        (role_id, used),
        (role_id, foreign),
        (other_id, good),
        (role_id, elsewhere),
        (role_id, "x" * 5000),
        (role_id, good + "\u0000"),
        (role_id.upper(), good),
        (good, role_id),
        ("app", good),
    ):
        answer = await login(own, *pair)
        assert answer.json()["errors"] == FAILED, pair
        seen.add((answer.status_code, answer.json()["code"], *sorted(answer.headers)))
    assert len(seen) == 1
    assert (await login(own, role_id, good)).status_code == 200


async def test_spaces_around_ids(node: Node) -> None:
    """As in Vault, what a file or a shell put around an id is no part of it; no id is chosen with any."""
    role_id = await role(node)
    good = (await secret_id(node))["secret_id"]
    for before, after in (("", "\n"), ("", "\r\n"), (" ", ""), ("\t ", " \n\n")):
        answer = await login(node, before + role_id + after, before + good + after)
        assert answer.status_code == 200, (before, after)
    for pair in ((" ", good), (role_id, " \n"), (role_id[:4] + " " + role_id[4:], good)):
        assert (await login(node, *pair)).json()["errors"] == FAILED
    for path, name in (("role-id", "role_id"), ("custom-secret-id", "secret_id")):
        for wrong in (" chosen-by-me", "chosen-by-me ", " " * 20):
            refused = await node.call("POST", f"auth/approle/role/app/{path}", json={name: wrong})
            assert refused.status_code == 400, (name, wrong)
    refused = await node.call("POST", "auth/approle/role/app", json={"role_id": "chosen-by-me "})
    assert refused.status_code == 400


async def test_one_use_is_one_use(node: Node) -> None:
    """Of many logins at once with a SecretID for one use exactly one gets in, with three uses three."""
    role_id = await role(node)
    for uses in (1, 3):
        secret = (await secret_id(node, num_uses=uses))["secret_id"]
        answers = await asyncio.gather(*(login(node, role_id, secret) for _ in range(12)))
        assert sorted(answer.status_code for answer in answers) == [200] * uses + [400] * (12 - uses)
        assert (await login(node, role_id, secret)).json()["errors"] == FAILED


@ALONE
async def test_secret_id_lives_as_long_as_it_says(own: Node, clock: MovingClock) -> None:
    """A SecretID is good up to its end and not at it; the token outlives it."""
    role_id = await role(own, secret_id_ttl="10m", token_policies="default")
    made = await secret_id(own)
    assert made["secret_id_ttl"] == 600
    clock.ahead += timedelta(minutes=9, seconds=55)
    token = (await login(own, role_id, made["secret_id"])).json()["auth"]["client_token"]
    clock.ahead += timedelta(seconds=6)
    assert (await login(own, role_id, made["secret_id"])).status_code == 400
    assert (await own.call("GET", "auth/token/lookup-self", token)).status_code == 200
    assert (await own.call("LIST", "auth/approle/role/app/secret-id")).status_code == 404


async def test_a_secret_id_is_never_wider_than_its_role(node: Node) -> None:
    """Lifetime and uses of a SecretID stay within the role's."""
    await role(node, secret_id_ttl="10m", secret_id_num_uses=5)
    made = await secret_id(node)
    assert (made["secret_id_ttl"], made["secret_id_num_uses"]) == (600, 5)
    made = await secret_id(node, ttl="5m", num_uses="2")
    assert (made["secret_id_ttl"], made["secret_id_num_uses"]) == (300, 2)
    for body in ({"ttl": "11m"}, {"ttl": 0}, {"num_uses": 6}, {"num_uses": 0}):
        refused = await node.call("POST", "auth/approle/role/app/secret-id", json=body)
        assert refused.status_code == 400, body


async def test_addresses(node: Node) -> None:
    """Networks of role and SecretID both hold, also for IPv4 written as IPv6; unknown is outside."""
    role_id = await role(node, secret_id_bound_cidrs="10.0.0.0/8,2001:db8::/32,::ffff:192.0.2.0/120")
    kept = (await node.call("GET", "auth/approle/role/app")).json()["data"]["secret_id_bound_cidrs"]
    assert kept == ["10.0.0.0/8", "2001:db8::/32", "192.0.2.0/24"]
    wide = (await secret_id(node))["secret_id"]
    narrow = (await secret_id(node, cidr_list=["10.0.0.0/8", "192.0.2.0/24", "2001:db8:1::/48"]))["secret_id"]
    for address, in_role in (
        ("10.0.0.1", True),
        ("10.255.255.255", True),
        ("::ffff:10.0.0.1", True),
        ("192.0.2.9", True),
        ("::ffff:192.0.2.9", True),
        ("2001:db8:1::5", True),
        ("2001:db8:2::5", True),
        ("11.0.0.1", False),
        ("127.0.0.1", False),
        ("::1", False),
        ("2001:db9::1", False),
        ("::10.0.0.1", False),
        ("::ffff:11.0.0.1", False),
        ("64:ff9b::a00:1", False),
        (None, False),
    ):
        for secret, allowed in (
            (wide, in_role),
            (narrow, in_role and not str(address).startswith("2001:db8:2")),
        ):
            result = await from_address(node, address, {"role_id": role_id, "secret_id": secret})
            assert isinstance(result, Answer) == allowed, address
            if not allowed:
                assert str(result) == FAILED[0]


async def test_refused_addresses_cost_no_use(node: Node) -> None:
    """A login from elsewhere does not use a SecretID up."""
    role_id = await role(node)
    made = await secret_id(node, num_uses=1, cidr_list=["127.0.0.0/8"])
    body = {"role_id": role_id, "secret_id": made["secret_id"]}
    assert isinstance(await from_address(node, "192.0.2.1", body), SecretHubError)
    assert (await login(node, role_id, made["secret_id"])).status_code == 200


async def test_forwarded_headers_are_not_believed(node: Node) -> None:
    """An address in a header moves nobody into a network."""
    role_id = await role(node, secret_id_bound_cidrs=["10.0.0.0/8"])
    secret = (await secret_id(node))["secret_id"]
    for name in (
        "X-Forwarded-For",
        "Forwarded",
        "X-Real-IP",
        "X-Client-IP",
        "True-Client-IP",
        "CF-Connecting-IP",
    ):
        value = "for=10.0.0.1" if name == "Forwarded" else "10.0.0.1"
        answer = await node.call(
            "POST",
            "auth/approle/login",
            "",
            json={"role_id": role_id, "secret_id": secret},
            headers={name: value},
        )
        assert answer.json()["errors"] == FAILED


async def test_deleting_a_role_ends_its_secret_ids(node: Node) -> None:
    """A role made again under the same name takes none of the former SecretIDs."""
    role_id = await role(node)
    secrets = [(await secret_id(node))["secret_id"] for _ in range(3)]
    assert (await node.call("DELETE", "auth/approle/role/app")).status_code == 204
    assert (await login(node, role_id, secrets[0])).json()["errors"] == FAILED
    assert (await node.call("GET", "auth/approle/role/app")).status_code == 404
    assert (await node.call("DELETE", "auth/approle/role/app")).status_code == 204
    again = await role(node)
    assert again != role_id
    for secret in secrets:
        for identifier in (again, role_id):
            assert (await login(node, identifier, secret)).json()["errors"] == FAILED
    connection = await asyncpg.connect(node.settings.database_url)
    try:
        assert await connection.fetchval("SELECT count(*) FROM secret_ids") == 0
        assert await connection.fetchval("SELECT count(*) FROM role_ids") == 1
    finally:
        await connection.close()


async def test_making_secret_ids_while_the_role_is_deleted(node: Node) -> None:
    """No SecretID survives its role, however the two requests meet."""
    await role(node)
    made = [node.call("POST", "auth/approle/role/app/secret-id", json={}) for _ in range(10)]
    *answers, deleted = await asyncio.gather(*made, node.call("DELETE", "auth/approle/role/app"))
    assert deleted.status_code == 204
    assert {answer.status_code for answer in answers} <= {200, 404}
    role_id = await role(node)
    for answer in answers:
        if answer.status_code == 200:
            refused = await login(node, role_id, answer.json()["data"]["secret_id"])
            assert refused.json()["errors"] == FAILED


async def test_chosen_role_id(node: Node) -> None:
    """A chosen RoleID replaces the former one, and belongs to one role."""
    former = await role(node)
    await role(node, "other")
    secret = (await secret_id(node))["secret_id"]
    chosen = await node.call("POST", "auth/approle/role/app/role-id", json={"role_id": "chosen-by-me"})
    assert chosen.status_code == 204
    assert (await login(node, former, secret)).json()["errors"] == FAILED
    assert (await login(node, "chosen-by-me", secret)).status_code == 200
    taken = await node.call("POST", "auth/approle/role/other/role-id", json={"role_id": "chosen-by-me"})
    assert taken.status_code == 400
    assert taken.json()["errors"] == ["this RoleID is in use"]
    again = await node.call("POST", "auth/approle/role/app/role-id", json={"role_id": "chosen-by-me"})
    assert again.status_code in {204, 400}
    assert (await login(node, "chosen-by-me", secret)).status_code == 200
    for wrong in ("", "short", "a" * 257, "with\nline", "nul\u0000nul"):
        refused = await node.call("POST", "auth/approle/role/app/role-id", json={"role_id": wrong})
        assert refused.status_code == 400


async def test_role_names(node: Node) -> None:
    """A name is letters, digits, dot, underscore and dash; each spelling is a role of its own."""
    for name in ("a", "A.b-c_9", "x" * 128):
        await role(node, name)
    for name in ("a%20b", "ä", "a:b", "a*", "x" * 129, "a,b", "%7Bx%7D"):
        refused = await node.call("POST", f"auth/approle/role/{name}", json={})
        assert refused.status_code == 400, name
    await role(node, "Admin", token_policies="one")
    await role(node, "admin", token_policies="two")
    for name, policies in (("Admin", ["one"]), ("admin", ["two"])):
        read = await node.call("GET", f"auth/approle/role/{name}")
        assert read.json()["data"]["token_policies"] == policies
    listed = (await node.call("LIST", "auth/approle/role")).json()["data"]["keys"]
    assert listed == sorted(["a", "A.b-c_9", "x" * 128, "Admin", "admin"])


async def test_a_denied_role_is_not_reached_by_another_spelling(node: Node) -> None:
    """What is decided on is what is changed: upper case leads around no rule."""
    await role(node, "admin", token_policies="high")
    policy = {
        "path": {
            "auth/approle/role/*": {"capabilities": ["create", "update", "read", "delete"]},
            "auth/approle/role/admin": {"capabilities": ["deny"]},
            "auth/approle/role/admin/*": {"capabilities": ["deny"]},
        }
    }
    token = await node.token("roles", policy)
    for path in ("role/ADMIN", "role/ADMIN/role-id", "role/ADMIN/secret-id"):
        answer = await node.call("GET" if path.endswith("id") else "DELETE", f"auth/approle/{path}", token)
        assert answer.status_code in {204, 404, 405}
    made = await node.call("POST", "auth/approle/role/ADMIN", token, json={"token_policies": ["roles"]})
    assert made.status_code == 204
    kept = await node.call("GET", "auth/approle/role/admin")
    assert kept.json()["data"]["token_policies"] == ["high"]


async def test_role_settings_are_kept_and_merged(node: Node) -> None:
    """Fields that are not given stay; a role reads back as it was written."""
    await role(
        node,
        token_policies=["b", "a"],
        token_ttl=60,
        token_max_ttl="1h",
        secret_id_ttl="24h",
        secret_id_num_uses="40",
        token_no_default_policy="true",
        token_type="default",
        token_bound_cidrs=[],
        token_num_uses=0,
        token_period="0",
        token_explicit_max_ttl=0,
        local_secret_ids=False,
        bind_secret_id=True,
    )
    await role(node, token_ttl="2m")
    data = (await node.call("GET", "auth/approle/role/app")).json()["data"]
    assert data["token_policies"] == ["a", "b"]
    assert (data["token_ttl"], data["token_max_ttl"]) == (120, 3600)
    assert (data["secret_id_ttl"], data["secret_id_num_uses"]) == (86400, 40)
    assert data["token_no_default_policy"] is True
    role_id = (await node.call("GET", "auth/approle/role/app/role-id")).json()["data"]["role_id"]
    auth = (await login(node, role_id, (await secret_id(node))["secret_id"])).json()["auth"]
    assert auth["policies"] == ["a", "b"]


async def test_role_changes_hold_for_tokens_to_come(node: Node) -> None:
    """A later login has what the role says now."""
    role_id = await role(node, token_policies="one")
    secret = (await secret_id(node))["secret_id"]
    await role(node, token_policies="two")
    assert (await login(node, role_id, secret)).json()["auth"]["policies"] == ["default", "two"]


async def test_what_cannot_be_honoured_is_refused(node: Node) -> None:
    """Settings that would narrow a role and are not enforced, and nonsense, are refused by name."""
    for body in (
        {"bind_secret_id": False},
        {"bind_secret_id": False, "secret_id_bound_cidrs": ["0.0.0.0/0", "10.0.0.0/8"]},
        {"bind_secret_id": False, "token_bound_cidrs": "::/0"},
        {"token_bound_cidrs": "10.0.0.0/33"},
        {"token_num_uses": -3},
        {"token_period": "1h", "period": "2h"},
        {"token_policies": "a", "policies": "b"},
        {"token_type": "batch", "token_num_uses": 3},
        {"token_type": "batch", "token_period": "1h"},
        {"token_type": "other"},
        {"local_secret_ids": True},
        {"token_policies": ["response-wrapping"]},
        {"token_policies": ["root"]},
        {"policies": "a,ROOT"},
        {"token_policies": ["a b"]},
        {"token_policies": [f"p{number}" for number in range(64)]},
        {"token_ttl": "2h", "token_max_ttl": "1h"},
        {"token_ttl": True},
        {"token_ttl": -5},
        {"secret_id_num_uses": -1},
        {"secret_id_num_uses": True},
        {"secret_id_num_uses": 10**30},
        {"secret_id_bound_cidrs": ["10.0.0.0/33"]},
        {"secret_id_bound_cidrs": ["example.com"]},
        {"secret_id_bound_cidrs": [f"10.0.{number}.0/24" for number in range(65)]},
        {"secret_id_bound_cidrs": "nonsense"},
    ):
        refused = await node.call("POST", "auth/approle/role/app", json=body)
        assert refused.status_code == 400, (body, refused.text)
    assert (await node.call("GET", "auth/approle/role/app")).status_code == 404
    await role(node)
    for body in (
        {"num_uses": -1},
        {"num_uses": 10**30},
        {"ttl": "-1s"},
        {"ttl": False},
        {"cidr_list": ["x"]},
        {"token_bound_cidrs": ["10.0.0.0/40"]},
        {"metadata": "{"},
        {"metadata": "[]"},
        {"metadata": '{"a": "b\\u0000"}'},
        {"metadata": {"a": "b\u0000"}},
        {"metadata": {"a": {}}},
        {"metadata": {f"k{number}": "" for number in range(65)}},
        {"metadata": "[" * 100_000},
        {"metadata": '{"a": "b=c"'},
        {"metadata": "host"},
        {"metadata": "host=h1,site"},
        {"metadata": "host=a=b"},
        {"metadata": "=h1"},
        {"metadata": "host="},
        {"metadata": ",".join(f"k{number}=v" for number in range(65))},
    ):
        refused = await node.call("POST", "auth/approle/role/app/secret-id", json=body)
        assert refused.status_code == 400, (body, refused.text)


async def test_secret_ids_are_shown_once(node: Node) -> None:
    """Afterwards only accessors are known, and the database has neither SecretID nor digest without key."""
    await role(node)
    made = [await secret_id(node) for _ in range(3)]
    listed = (await node.call("LIST", "auth/approle/role/app/secret-id")).json()["data"]["keys"]
    assert listed == sorted(one["secret_id_accessor"] for one in made)
    connection = await asyncpg.connect(node.settings.database_url)
    try:
        for table in ("secret_ids", "audit_entries", "changes"):
            text = await connection.fetchval(f"SELECT string_agg(t::text, ' ') FROM {table} t")
            for one in made:
                assert one["secret_id"] not in text
    finally:
        await connection.close()


async def test_missing_roles(node: Node) -> None:
    """What belongs to a role that does not exist is missing, and an empty list is too."""
    assert (await node.call("LIST", "auth/approle/role")).json()["errors"] == []
    for method, path in (
        ("GET", "role/none"),
        ("GET", "role/none/role-id"),
        ("POST", "role/none/secret-id"),
        ("LIST", "role/none/secret-id"),
        ("POST", "role/none/role-id"),
    ):
        body = {"role_id": "chosen-by-me"} if path.endswith("role-id") else {}
        answer = await node.call(method, f"auth/approle/{path}", json=body)
        assert answer.status_code == 404, path
