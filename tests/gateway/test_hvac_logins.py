"""The hvac client, unmodified, drives the auth methods."""

from __future__ import annotations

import hvac
import pytest
from hvac import exceptions

from tests.gateway.conftest import Node
from tests.gateway.test_hvac import with_client


async def test_approle_in_full(node: Node) -> None:
    """Roles with every parameter, SecretIDs made, chosen, wrapped, looked up and destroyed."""

    def work(client: hvac.Client) -> None:
        approle = client.auth.approle
        approle.create_or_update_approle(
            "app",
            bind_secret_id=True,
            secret_id_bound_cidrs=["127.0.0.0/8"],
            secret_id_num_uses=5,
            secret_id_ttl="1h",
            enable_local_secret_ids=False,
            token_ttl="20m",
            token_max_ttl="1h",
            token_policies=["app"],
            token_bound_cidrs=["127.0.0.1/32"],
            token_explicit_max_ttl="2h",
            token_no_default_policy=True,
            token_num_uses=9,
            token_period="30m",
            token_type="service",
        )
        told = approle.read_role("app")["data"]
        assert told["token_type"] == "service"
        assert (told["token_period"], told["token_explicit_max_ttl"]) == (1800, 7200)
        assert told["token_bound_cidrs"] == ["127.0.0.1/32"]
        role_id = approle.read_role_id("app")["data"]["role_id"]
        made = approle.create_custom_secret_id("app", "chosen-by-me", metadata={"host": "h1"})["data"]
        wrapped = approle.generate_secret_id("app", token_bound_cidrs=["127.0.0.1/32"], wrap_ttl="1m")
        opened = client.sys.unwrap(wrapped["wrap_info"]["token"])["data"]
        assert len(approle.list_secret_id_accessors("app")["data"]["keys"]) == 2
        assert approle.read_secret_id("app", "chosen-by-me")["data"]["metadata"] == {"host": "h1"}
        seen = approle.read_secret_id_accessor("app", opened["secret_id_accessor"])["data"]
        assert seen["secret_id_num_uses"] == 5
        for secret in ("chosen-by-me", opened["secret_id"]):
            auth = approle.login(role_id, secret, use_token=False)["auth"]
            assert auth["policies"] == ["app"]
            assert auth["num_uses"] == 9
        approle.destroy_secret_id("app", "chosen-by-me")
        approle.destroy_secret_id_accessor("app", opened["secret_id_accessor"])
        with pytest.raises(exceptions.InvalidPath):
            approle.list_secret_id_accessors("app")
        with pytest.raises(exceptions.InvalidRequest, match="invalid role or secret ID"):
            approle.login(role_id, made["secret_id"], use_token=False)

    await with_client(node, work)
