"""The hvac client, unmodified, on what the system offers: auth methods, mounts, tools, quotas."""

from __future__ import annotations

import hvac
import pytest
from hvac import exceptions

from tests.gateway.conftest import SHARING, Node, native
from tests.gateway.test_hvac import with_client


@SHARING
async def test_auth_methods(shared_node: Node) -> None:
    """Enable, list, tune, read, use, disable."""

    def work(client: hvac.Client) -> None:
        client.sys.enable_auth_method("approle", path="machines", description="ours")
        listed = client.sys.list_auth_methods()
        assert listed["data"]["machines/"]["description"] == "ours"
        assert listed["machines/"]["type"] == "approle"
        tuned = client.sys.tune_auth_method("machines", default_lease_ttl="20m", max_lease_ttl="1h")
        assert tuned.status_code == 204
        read = client.sys.read_auth_method_tuning("machines")["data"]
        assert (read["default_lease_ttl"], read["max_lease_ttl"]) == (1200, 3600)
        method = client.auth.approle
        method.create_or_update_approle("web", token_policies=["default"], mount_point="machines")
        role_id = method.read_role_id("web", mount_point="machines")["data"]["role_id"]
        secret_id = method.generate_secret_id("web", mount_point="machines")["data"]["secret_id"]
        made = method.login(role_id, secret_id, mount_point="machines", use_token=False)
        token = made["auth"]["client_token"]
        assert made["auth"]["lease_duration"] == 1200
        assert client.auth.token.lookup(token)["data"]["path"] == "auth/machines/login"
        client.sys.disable_auth_method("machines")
        assert "machines/" not in client.sys.list_auth_methods()["data"]
        with pytest.raises(exceptions.Forbidden):
            client.auth.token.lookup(token)
        with pytest.raises(exceptions.InvalidRequest):
            client.sys.enable_auth_method("kubernetes")

    await with_client(shared_node, work)


@SHARING
async def test_secrets_engines(shared_node: Node) -> None:
    """Mount, list, tune, read, remove."""

    def work(client: hvac.Client) -> None:
        client.sys.enable_secrets_engine("kv", path="team", options={"version": "2"}, description="ours")
        assert client.sys.list_mounted_secrets_engines()["data"]["team/"]["options"] == {"version": "2"}
        client.sys.tune_mount_configuration("team", default_lease_ttl="20m", description="theirs")
        read = client.sys.read_mount_configuration("team")["data"]
        assert (read["default_lease_ttl"], read["description"]) == (1200, "theirs")
        client.secrets.kv.v2.create_or_update_secret("a", {"k": "v"}, mount_point="team")
        client.sys.disable_secrets_engine("team")
        assert "team/" not in client.sys.list_mounted_secrets_engines()["data"]

    await with_client(shared_node, work)


@SHARING
async def test_nodes_without_a_leader(shared_node: Node) -> None:
    """Stepping down changes nothing and takes sudo; whether the cluster is initialised is told to anybody."""
    weak = await shared_node.token("weak", native("secrets/**"))

    def work(client: hvac.Client) -> None:
        assert client.sys.step_down().status_code == 204
        assert client.sys.read_init_status()["initialized"] is True
        assert client.secrets.kv.v2.create_or_update_secret("led", {"k": "v"})["data"]["version"] == 1
        client.token = weak
        with pytest.raises(exceptions.Forbidden):
            client.sys.step_down()

    await with_client(shared_node, work)


@SHARING
async def test_moved_engines(shared_node: Node) -> None:
    """A mount moves with all that is in it."""

    def work(client: hvac.Client) -> None:
        client.sys.enable_secrets_engine("kv", path="moving", options={"version": "2"})
        client.secrets.kv.v2.create_or_update_secret("a", {"k": "v"}, mount_point="moving")
        client.sys.move_backend("moving", "crew")
        assert client.read("crew/data/a")["data"]["data"] == {"k": "v"}
        assert client.read("moving/data/a") is None

    await with_client(shared_node, work)


@SHARING
async def test_lookups_by_either_method(shared_node: Node) -> None:
    """Vault takes reads and writes where something is only looked up."""

    def work(client: hvac.Client) -> None:
        own = client.read("auth/token/lookup-self")["data"]
        assert client.write_data("auth/token/lookup-self")["data"]["accessor"] == own["accessor"]
        wrapped = client.write_data("sys/wrapping/wrap", data={"k": "v"}, wrap_ttl="1m")["wrap_info"]
        other = hvac.Client(url=client.url, token=wrapped["token"])
        assert other.read("sys/wrapping/lookup")["data"]["creation_path"] == "sys/wrapping/wrap"
        told = client.write_data("sys/wrapping/lookup", data={"token": wrapped["token"]})["data"]
        assert told["creation_ttl"] == 60
        assert other.sys.unwrap()["data"] == {"k": "v"}

    await with_client(shared_node, work)


@SHARING
async def test_tools_and_description(shared_node: Node) -> None:
    """Random bytes, digests, and the OpenAPI document."""

    def work(client: hvac.Client) -> None:
        made = client.write_data("sys/tools/random/16", data={"format": "hex"})
        assert len(bytes.fromhex(made["data"]["random_bytes"])) == 16
        digest = client.write_data("sys/tools/hash/sha2-256", data={"input": "YQ=="})
        assert digest["data"]["sum"].startswith("ca978112ca1b")
        described = client.read("sys/internal/specs/openapi")
        assert described["openapi"] == "3.1.0"
        assert "/secret/data/{path}" in described["paths"]

    await with_client(shared_node, work)


async def test_data_keys(node: Node) -> None:
    """Rotate, read the status."""

    def work(client: hvac.Client) -> None:
        assert client.sys.get_encryption_key_status()["data"]["term"] == 1
        assert client.sys.rotate_encryption_key().status_code == 204
        status = client.sys.get_encryption_key_status()
        assert status["data"]["term"] == status["term"] == client.key_status["term"] == 2

    await with_client(node, work)


async def test_quotas(node: Node) -> None:
    """Write, read, list and delete a rate limit; the excess is what hvac calls rate-limited."""

    def work(client: hvac.Client) -> None:
        client.sys.create_or_update_quota(
            "store", rate=2, path="secret/", interval="700h", rate_limit_type="rate-limit", inheritable=False
        )
        assert client.sys.read_quota("store")["data"]["rate"] == 2
        assert client.sys.list_quotas()["data"]["keys"] == ["store"]
        kv = client.secrets.kv.v2
        kv.create_or_update_secret("a", {"k": "v"})
        kv.read_secret_version("a", raise_on_deleted_version=True)
        with pytest.raises(exceptions.RateLimitExceeded):
            kv.read_secret_version("a", raise_on_deleted_version=True)
        client.sys.delete_quota("store")
        assert kv.read_secret_version("a", raise_on_deleted_version=True)["data"]["data"] == {"k": "v"}

    await with_client(node, work)


@SHARING
async def test_what_is_not_here_is_said_so(shared_node: Node) -> None:
    """Vault's engines, methods and paths that are not here are refused as what does not exist."""
    csr = "-----BEGIN CERTIFICATE REQUEST-----"

    def work(client: hvac.Client) -> None:
        for path in (
            "sys/rekey/backup",
            "sys/rekey/recovery-key-backup",
            "sys/namespaces",
            "sys/policies/egp",
            "sys/storage/raft/configuration",
            "sys/raw/core/keyring",
            "sys/replication/status",
            "sys/plugins/catalog",
            "sys/config/cors",
            "sys/pprof",
            "sys/monitor",
            "sys/license/status",
            "auth/cert/crls/one",
            "identity/entity/id",
            "transit/keys/one",
            "pki/crl",
            "pki/roles/web",
        ):
            with pytest.raises(exceptions.InvalidPath, match="no handler for route"):
                client.adapter.get(f"/v1/{path}")
        for path in ("pki/sign/default", "pki/revoke", "pki/root/generate/internal", "transit/encrypt/one"):
            with pytest.raises(exceptions.InvalidPath, match="no handler for route"):
                client.write_data(path, data={"csr": csr, "serial_number": "1"})
        for kind in ("transit", "ssh", "identity", "rabbitmq"):
            with pytest.raises(exceptions.InvalidRequest):
                client.sys.enable_secrets_engine(kind)
        for kind in ("ldap", "jwt", "aws", "github"):
            with pytest.raises(exceptions.InvalidRequest):
                client.sys.enable_auth_method(kind)
        spaced = hvac.Client(url=client.url, token=shared_node.root, namespace="team")
        with pytest.raises(exceptions.InvalidRequest, match="no namespaces"):
            spaced.read("secret/data/a")
        spaced.adapter.close()

    await with_client(shared_node, work)
