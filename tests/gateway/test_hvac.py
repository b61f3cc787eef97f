"""The hvac client, unmodified, does everything that exists here."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, TypeVar

import hvac
import pytest
from hvac import exceptions

from tests.gateway.conftest import SHARING, Node, native

T = TypeVar("T")


async def with_client(node: Node, work: Callable[[hvac.Client], T], token: str | None = None) -> T:
    """Run ``work`` with a client in a thread of its own, as hvac is synchronous."""
    assert node.settings.http is not None
    url = f"http://127.0.0.1:{node.settings.http.port}"

    def run() -> T:
        client = hvac.Client(url=url, token=node.root if token is None else token)
        try:
            return work(client)
        finally:
            client.adapter.close()

    return await asyncio.to_thread(run)


async def test_seal(sealed_node: Node) -> None:
    """init, unseal with progress and reset, status, health, leader, seal."""

    def work(client: hvac.Client) -> None:
        assert client.sys.is_initialized() is False
        assert client.sys.is_sealed() is True
        assert client.sys.read_health_status().status_code == 501
        made = client.sys.initialize(secret_shares=5, secret_threshold=3)
        assert len(made["keys"]) == len(made["keys_base64"]) == 5
        client.token = made["root_token"]
        assert client.sys.is_initialized() is True
        assert client.sys.read_health_status().status_code == 503
        overridden = client.sys.read_health_status(method="GET", sealed_code=299)
        assert (overridden.status_code, overridden.json()["sealed"]) == (299, True)
        with pytest.raises(exceptions.VaultDown, match="sealed"):
            client.secrets.kv.v2.read_secret_version("a")
        assert client.sys.submit_unseal_key(made["keys"][0])["progress"] == 1
        assert client.sys.submit_unseal_key(reset=True)["progress"] == 0
        client.sys.submit_unseal_keys(made["keys_base64"][:3])
        assert client.sys.is_sealed() is False
        status = client.sys.read_seal_status()
        assert (status["t"], status["n"], status["progress"]) == (3, 5, 0)
        health = client.sys.read_health_status(method="GET")
        assert (health["initialized"], health["sealed"], health["standby"]) == (True, False, False)
        assert health["version"].startswith("1.16.")
        assert client.sys.read_leader_status()["is_self"] is True
        assert client.is_authenticated()
        with pytest.raises(exceptions.InvalidRequest, match="already initialized"):
            client.sys.initialize()
        assert client.sys.seal().status_code == 204
        assert client.sys.is_sealed() is True
        client.sys.submit_unseal_keys(made["keys"][2:])
        assert client.secrets.kv.v2.create_or_update_secret("a", {"k": "v"})["data"]["version"] == 1

    await with_client(sealed_node, work, "")


@SHARING
async def test_key_value(shared_node: Node) -> None:
    """Write, read any version, check-and-set, patch, list, soft delete."""

    def work(client: hvac.Client) -> None:
        kv = client.secrets.kv.v2
        with pytest.raises(exceptions.InvalidPath):
            kv.read_secret_version("app/db")
        with pytest.raises(exceptions.InvalidPath):
            kv.list_secrets("app")
        assert kv.create_or_update_secret("app/db", {"password": "one"}, cas=0)["data"]["version"] == 1
        with pytest.raises(exceptions.InvalidRequest, match="check-and-set"):
            kv.create_or_update_secret("app/db", {"password": "other"}, cas=0)
        assert kv.create_or_update_secret("app/db", {"password": "two"})["data"]["version"] == 2
        assert kv.patch("app/db", {"user": "u"})["data"]["version"] == 3
        newest = kv.read_secret_version("app/db", raise_on_deleted_version=True)["data"]
        assert newest["data"] == {"password": "two", "user": "u"}
        assert newest["metadata"]["version"] == 3
        assert kv.read_secret_version("app/db", version=1)["data"]["data"] == {"password": "one"}
        assert kv.read_secret("app/db")["data"]["data"]["user"] == "u"
        with pytest.raises(exceptions.InvalidPath):
            kv.read_secret_version("app/db", version=9)
        assert "app/" in kv.list_secrets("")["data"]["keys"]
        assert kv.list_secrets("app")["data"]["keys"] == ["db"]
        versions = kv.read_secret_metadata("app/db")["data"]["versions"]
        assert list(versions) == ["1", "2", "3"]
        assert kv.delete_latest_version_of_secret("app/db").status_code == 204
        with pytest.raises(exceptions.InvalidPath) as gone:
            kv.read_secret_version("app/db", raise_on_deleted_version=True)
        assert gone.value.json["data"]["metadata"]["deletion_time"] != ""
        deleted = kv.read_secret_version("app/db", raise_on_deleted_version=False)["data"]
        assert deleted["data"] is None
        assert deleted["metadata"]["version"] == 3
        assert kv.read_secret_version("app/db", version=2)["data"]["data"] == {"password": "two"}
        assert kv.create_or_update_secret("app/db", {})["data"]["version"] == 4

    await with_client(shared_node, work)


async def test_every_operation_on_versions(node: Node) -> None:
    """Settings, metadata, delete, undelete and destroy, of a store and of a secret."""

    def work(client: hvac.Client) -> None:
        kv = client.secrets.kv.v2
        assert kv.configure(max_versions=4, cas_required=False, delete_version_after="2h").status_code == 204
        settings = kv.read_configuration()["data"]
        assert settings == {"max_versions": 4, "cas_required": False, "delete_version_after": "2h0m0s"}
        for number in range(6):
            kv.create_or_update_secret("app", {"n": number})
        kv.update_metadata(
            "app",
            max_versions=3,
            cas_required=True,
            delete_version_after="30m",
            custom_metadata={"owner": "us"},
        )
        with pytest.raises(exceptions.InvalidRequest, match="parameter required"):
            kv.create_or_update_secret("app", {"n": 7})
        assert kv.create_or_update_secret("app", {"n": 7}, cas=6)["data"]["version"] == 7
        shown = kv.read_secret_metadata("app")["data"]
        assert sorted(shown["versions"]) == ["5", "6", "7"]
        assert (shown["custom_metadata"], shown["delete_version_after"]) == ({"owner": "us"}, "30m0s")
        assert kv.delete_secret_versions("app", [5, 6]).status_code == 204
        assert kv.undelete_secret_versions("app", [5]).status_code == 204
        assert kv.destroy_secret_versions("app", [7]).status_code == 204
        assert kv.read_secret_version("app", 5, raise_on_deleted_version=True)["data"]["data"] == {"n": 4}
        for version in (6, 7):
            with pytest.raises(exceptions.InvalidPath):
                kv.read_secret_version("app", version, raise_on_deleted_version=True)
        patched = client.adapter.request(
            "PATCH",
            "/v1/secret/data/other",
            json={"data": {"n": 1}},
            headers={"Content-Type": "application/merge-patch+json"},
            raise_exception=False,
        )
        assert patched.status_code == 404
        assert client.read("secret/subkeys/app?version=5")["data"]["subkeys"] == {"n": None}
        assert kv.delete_metadata_and_all_versions("app").status_code == 204
        with pytest.raises(exceptions.InvalidPath):
            kv.read_secret_metadata("app")
        assert kv.create_or_update_secret("app", {})["data"]["version"] == 1

    await with_client(node, work)


@SHARING
async def test_key_value_version_1(shared_node: Node) -> None:
    """A store of version 1, mounted as in Vault: write, read, list, delete."""

    def work(client: hvac.Client) -> None:
        kv = client.secrets.kv.v1
        client.sys.enable_secrets_engine("kv", path="first")
        assert client.sys.retrieve_mount_option("first", "version") == "1"
        assert (
            kv.create_or_update_secret("app/db", {"k": "v", "ttl": "1h"}, mount_point="first").status_code
            == 204
        )
        found = kv.read_secret("app/db", mount_point="first")
        assert (found["data"], found["lease_duration"]) == ({"k": "v", "ttl": "1h"}, 3600)
        kv.create_or_update_secret("app/db", {"k": "w"}, method="PUT", mount_point="first")
        assert kv.read_secret("app/db", mount_point="first")["data"] == {"k": "w"}
        assert kv.list_secrets("app", mount_point="first")["data"]["keys"] == ["db"]
        assert kv.list_secrets("", mount_point="first")["data"]["keys"] == ["app/"]
        assert kv.delete_secret("app/db", mount_point="first").status_code == 204
        with pytest.raises(exceptions.InvalidPath):
            kv.read_secret("app/db", mount_point="first")

    await with_client(shared_node, work)


@SHARING
async def test_generic_reads_and_writes(shared_node: Node) -> None:
    """read, write_data, list and delete work on any path, the flat view included."""

    def work(client: hvac.Client) -> None:
        client.write_data("secrets/a/b", data={"data": {"k": "v"}})
        assert client.read("secrets/a/b")["data"]["data"] == {"k": "v"}
        assert client.list("secrets/a")["data"]["keys"] == ["b"]
        assert client.read("secrets/none") is None
        assert client.list("secrets/none") is None
        client.delete("secrets/a/b")
        client.write_data("secret/data/c", data={"data": {"n": 1.5, "l": [None, True], "ü": "ß"}})
        assert client.read("secrets/c")["data"]["data"] == {"n": 1.5, "l": [None, True], "ü": "ß"}

    await with_client(shared_node, work)


@SHARING
async def test_mounts_and_policies(shared_node: Node) -> None:
    """Mounts are added and listed; policies are written, read, listed and deleted under both paths."""

    def work(client: hvac.Client) -> None:
        made = client.sys.enable_secrets_engine(
            "kv", path="team", options={"version": "2"}, description="ours"
        )
        assert made.status_code == 204
        assert client.sys.list_mounted_secrets_engines()["data"]["team/"]["description"] == "ours"
        client.secrets.kv.v2.create_or_update_secret("x", {"k": 1}, mount_point="team")
        assert client.secrets.kv.v2.list_secrets("", mount_point="team")["data"]["keys"] == ["x"]
        assert client.sys.read_mount_configuration("team")["data"]["description"] == "ours"
        tuned = client.sys.tune_mount_configuration("team", max_lease_ttl="10h", description="theirs")
        assert tuned.status_code == 204
        seen = client.sys.read_mount_configuration("team")["data"]
        assert (seen["description"], seen["max_lease_ttl"]) == ("theirs", 36000)
        assert client.sys.retrieve_mount_option("team", "version") == "2"
        assert client.sys.disable_secrets_engine("team").status_code == 204
        assert "team/" not in client.sys.list_mounted_secrets_engines()["data"]
        with pytest.raises(exceptions.InvalidRequest, match="cannot unmount"):
            client.sys.disable_secrets_engine("sys")
        assert "approle/" in client.sys.list_auth_methods()["data"]
        policy = {"path": {"secret/data/*": {"capabilities": ["read"]}}}
        before = client.sys.list_policies()["data"]["policies"]
        client.sys.create_or_update_policy("one", policy)
        client.sys.create_or_update_acl_policy("two", native("secrets/**"))
        client.sys.create_or_update_policy("three", json.dumps(policy), pretty_print=False)
        expected = sorted({*before, "one", "two", "three"})
        assert {"default", "root"} < set(expected)
        assert client.sys.list_policies()["data"]["policies"] == expected
        assert client.sys.list_acl_policies()["data"]["keys"] == expected
        assert json.loads(client.sys.read_policy("one")["data"]["rules"]) == policy
        assert json.loads(client.sys.read_acl_policy("two")["data"]["policy"]) == native("secrets/**")
        assert json.loads(client.get_policy("three")) == policy
        client.sys.delete_policy("one")
        client.sys.delete_acl_policy("two")
        with pytest.raises(exceptions.InvalidPath):
            client.sys.read_policy("one")
        with pytest.raises(exceptions.InvalidRequest):
            client.sys.delete_policy("root")

    await with_client(shared_node, work)


async def test_tokens(node: Node) -> None:
    """create, lookup-self, renew-self, revoke-self."""

    def work(client: hvac.Client) -> None:
        made = client.auth.token.create(
            policies=["default"], ttl="1h", explicit_max_ttl="2h", display_name="ci", meta={"team": "x"}
        )["auth"]
        root, client.token = client.token, made["client_token"]
        seen = client.auth.token.lookup_self()["data"]
        assert seen["policies"] == ["default"]
        assert seen["display_name"] == "token-ci"
        assert seen["meta"] == {"team": "x"}
        assert client.lookup_token()["data"]["accessor"] == made["accessor"]
        assert client.auth.token.renew_self(increment="90m")["auth"]["lease_duration"] == 5400
        with pytest.raises(exceptions.Forbidden, match="permission denied"):
            client.auth.token.create(policies=["default"])
        client.auth.token.revoke_self()
        assert not client.is_authenticated()
        with pytest.raises(exceptions.Forbidden):
            client.auth.token.lookup_self()
        client.token = root
        assert client.is_authenticated()
        client.logout(revoke_token=True)
        assert client.token is None

    await with_client(node, work)


@SHARING
async def test_other_tokens(shared_node: Node) -> None:
    """Tokens of all kinds are made, looked up, renewed, revoked, by themselves and by accessor; roles."""

    def work(client: hvac.Client) -> None:
        api = client.auth.token
        api.create_or_update_role(
            "ci",
            allowed_policies=["default", "ci"],
            orphan=True,
            renewable=True,
            token_period="1h",
        )
        role = api.read_role("ci")["data"]
        assert role["allowed_policies"] == ["ci", "default"]
        assert (role["orphan"], role["token_period"]) == (True, 3600)
        assert api.list_roles()["data"]["keys"] == ["ci"]
        by_role = api.create(role_name="ci")["auth"]
        assert (by_role["orphan"], by_role["num_uses"], by_role["lease_duration"]) == (True, 0, 3600)
        assert api.create_orphan(policies=["default"])["auth"]["orphan"] is True
        batch = api.create(policies=["default"], type="batch", ttl="1h")["auth"]
        assert batch["client_token"].startswith("hvb.")
        assert api.lookup(batch["client_token"])["data"]["type"] == "batch"
        made = api.create(policies=["default"], ttl="1h", period="2h")["auth"]
        token, accessor = made["client_token"], made["accessor"]
        assert api.lookup(token)["data"]["period"] == 7200
        assert api.lookup_accessor(accessor)["data"]["id"] == ""
        assert api.renew(token)["auth"]["client_token"] == token
        assert api.renew_accessor(accessor)["auth"]["lease_duration"] == 7200
        assert accessor in api.list_accessors()["data"]["keys"]
        api.revoke_accessor(accessor)
        with pytest.raises(exceptions.Forbidden):
            api.lookup(token)
        with pytest.raises(exceptions.InvalidRequest, match="invalid accessor"):
            api.lookup_accessor(accessor)
        api.revoke(by_role["client_token"])
        other = api.create(policies=["default"])["auth"]["client_token"]
        api.revoke_and_orphan_children(other)
        with pytest.raises(exceptions.Forbidden):
            api.lookup(other)
        api.delete_role("ci")
        with pytest.raises(exceptions.InvalidPath):
            api.read_role("ci")
        assert api.tidy().status_code == 202
        found = client.sys.get_capabilities(paths=["secret/data/a"], token=batch["client_token"])
        assert found["capabilities"] == ["deny"]
        assert client.sys.get_capabilities(["a"])["a"] == ["root"]

    await with_client(shared_node, work)


@SHARING
async def test_the_clients_own_names(shared_node: Node) -> None:
    """What hvac offers of tokens outside its classes: a wrapped login, renewal, each way of revoking."""

    def work(client: hvac.Client) -> None:
        api = client.auth.token
        made = [api.create(policies=["default"], ttl="1h")["auth"] for _ in range(3)]
        tokens = [one["client_token"] for one in made]
        assert client.renew_token(tokens[0], increment="90m")["auth"]["lease_duration"] == 5400
        client.revoke_token(tokens[0])
        client.revoke_token(tokens[1], orphan=True)
        client.revoke_token(made[2]["accessor"], accessor=True)
        for token in tokens:
            with pytest.raises(exceptions.Forbidden):
                client.lookup_token(token)
        wrapped = api.create(policies=["default"], wrap_ttl="60s")["wrap_info"]
        opened = client.auth_cubbyhole(wrapped["token"])["auth"]
        assert client.token == opened["client_token"]
        assert client.lookup_token()["data"]["accessor"] == wrapped["wrapped_accessor"]
        client.token = shared_node.root
        client.write_data("auth/userpass/users/ada", data={"password": "correct horse battery"})
        client.login("/v1/auth/userpass/login/ada", json={"password": "correct horse battery"})
        assert client.lookup_token()["data"]["path"] == "auth/userpass/login/ada"

    await with_client(shared_node, work)


@SHARING
async def test_wrapping_and_cubbyhole(shared_node: Node) -> None:
    """Answers are wrapped and opened; a token keeps things of its own."""

    def work(client: hvac.Client) -> None:
        made = client.auth.token.create(policies=["default"], wrap_ttl="60s")["wrap_info"]
        assert made["creation_path"] == "auth/token/create"
        opened = client.sys.unwrap(made["token"])["auth"]
        assert opened["accessor"] == made["wrapped_accessor"]
        again = client.auth.token.create(policies=["default"], wrap_ttl="60s")["wrap_info"]
        other = hvac.Client(url=client.url, token=again["token"])
        assert other.sys.unwrap()["auth"]["policies"] == ["default"]
        with pytest.raises((exceptions.InvalidRequest, exceptions.Forbidden)):
            other.sys.unwrap()
        other.adapter.close()
        wrapped = client.sys.wrap({"k": "v"}, ttl=60)["wrap_info"]["token"]
        assert client.sys.unwrap(wrapped)["data"] == {"k": "v"}
        client.token = opened["client_token"]
        client.write_data("cubbyhole/a/b", data={"k": "v"})
        assert client.read("cubbyhole/a/b")["data"] == {"k": "v"}
        assert client.list("cubbyhole/a")["data"]["keys"] == ["b"]
        client.delete("cubbyhole/a/b")
        assert client.read("cubbyhole/a/b") is None

    await with_client(shared_node, work)


@SHARING
async def test_approle(shared_node: Node) -> None:
    """A role is written and read, gives out RoleID and SecretID, and lets its machine in."""
    await shared_node.call("POST", "secrets/machine/db", json={"data": {"k": "v"}})
    await shared_node.call("PUT", "sys/policies/acl/app", json={"policy": native("secrets/machine/**")})

    def work(client: hvac.Client) -> None:
        approle = client.auth.approle
        approle.create_or_update_approle(
            "app",
            token_policies=["app"],
            token_ttl="20m",
            token_max_ttl="1h",
            secret_id_ttl="24h",
            secret_id_num_uses=2,
            token_type="default",
            bind_secret_id=True,
        )
        assert approle.list_roles()["data"]["keys"] == ["app"]
        assert approle.read_role("app")["data"]["token_policies"] == ["app"]
        role_id = approle.read_role_id("app")["data"]["role_id"]
        made = approle.generate_secret_id("app", metadata={"host": "h1"}, cidr_list=["127.0.0.0/8"])["data"]
        listed = approle.list_secret_id_accessors("app")["data"]["keys"]
        assert listed == [made["secret_id_accessor"]]
        for _ in range(2):
            auth = approle.login(role_id, made["secret_id"])["auth"]
            assert client.token == auth["client_token"]
            assert auth["metadata"]["host"] == "h1"
            assert client.secrets.kv.v2.read_secret_version("machine/db")["data"]["data"] == {"k": "v"}
            with pytest.raises(exceptions.Forbidden):
                client.secrets.kv.v2.read_secret_version("other")
        with pytest.raises(exceptions.InvalidRequest, match="invalid role or secret ID"):
            approle.login(role_id, made["secret_id"])
        client.token = shared_node.root
        approle.update_role_id("app", "chosen-role-id")
        assert approle.read_role_id("app")["data"]["role_id"] == "chosen-role-id"
        approle.delete_role("app")
        with pytest.raises(exceptions.InvalidPath):
            approle.read_role("app")
        with pytest.raises(exceptions.InvalidPath):
            approle.list_roles()

    await with_client(shared_node, work)


@SHARING
async def test_certificates(shared_node: Node) -> None:
    """Certificates are read without a token: the authorities' as text, issued ones by their number."""

    def work(client: hvac.Client) -> None:
        pki = client.secrets.pki
        made = pki.generate_certificate("default", "app.example.com", {"ttl": "1h"})["data"]
        assert pki.list_certificates()["data"]["keys"] == [made["serial_number"]]
        client.token = None
        assert pki.read_ca_certificate() == made["issuing_ca"]
        assert pki.read_ca_certificate_chain() == "\n".join(made["ca_chain"])
        assert pki.read_certificate(made["serial_number"])["data"]["certificate"] == made["certificate"]
        assert pki.read_certificate("ca")["data"]["certificate"] == made["issuing_ca"]

    await with_client(shared_node, work)


@SHARING
async def test_errors_are_the_ones_that_hvac_knows(shared_node: Node) -> None:
    """Every status arrives as the exception that code written for Vault catches (for 405 hvac has none)."""

    def caught(work: Callable[[], Any]) -> type[BaseException]:
        try:
            work()
        except exceptions.VaultError as exc:
            return type(exc)
        raise AssertionError("nothing was raised")

    def work(client: hvac.Client) -> None:
        adapter = client.adapter
        assert caught(lambda: adapter.post("/v1/secrets/a", json={})) is exceptions.InvalidRequest
        assert caught(lambda: adapter.get("/v1/nothing/here")) is exceptions.InvalidPath
        assert caught(lambda: adapter.delete("/v1/sys/mounts")) is exceptions.UnexpectedError
        client.token = "hvs.unknown"
        assert caught(lambda: adapter.get("/v1/secrets/a")) is exceptions.Forbidden

    await with_client(shared_node, work)
