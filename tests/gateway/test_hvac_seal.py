"""The hvac client, unmodified, makes new shares and root tokens."""

from __future__ import annotations

import hvac
import pytest
from hvac import exceptions

from secrethub.seal.wishes import decode_token
from tests.gateway.conftest import Node
from tests.gateway.test_hvac import with_client


async def test_rekey(node: Node) -> None:
    """Progress, nonce, cancel, and new shares that unseal where the old ones do not."""
    old = node.shares

    def work(client: hvac.Client) -> None:
        idle = client.sys.read_rekey_progress()
        assert (idle["started"], idle["required"], idle["nonce"]) == (False, 3, "")
        client.sys.start_rekey(secret_shares=4, secret_threshold=2)
        with pytest.raises(exceptions.InvalidRequest, match="in progress"):
            client.sys.start_rekey(secret_shares=1, secret_threshold=1)
        client.sys.cancel_rekey()
        begun = client.sys.start_rekey(secret_shares=4, secret_threshold=2)
        assert (begun["started"], begun["t"], begun["n"], begun["required"]) == (True, 2, 4, 3)
        assert client.sys.rekey(old[0], nonce=begun["nonce"])["progress"] == 1
        assert client.sys.read_rekey_progress()["progress"] == 1
        with pytest.raises(exceptions.InvalidRequest, match="nonce"):
            client.sys.rekey(old[1], nonce="5f0c7127-8a6e-4f0e-9b7e-6d2f3a1c9e10")
        made = client.sys.rekey_multi(old[1:], nonce=begun["nonce"])
        assert (made["complete"], made["verification_required"], made["backup"]) == (True, False, False)
        assert [bytes.fromhex(key) for key in made["keys"]]
        assert len(made["keys_base64"]) == 4
        client.sys.seal()
        with pytest.raises(exceptions.InvalidRequest):
            client.sys.submit_unseal_key(old[0])
        client.sys.submit_unseal_keys(made["keys"][2:])
        assert client.sys.is_sealed() is False
        assert client.lookup_token()["data"]["display_name"] == "root"

    await with_client(node, work)


async def test_rekey_with_verification(node: Node) -> None:
    """The new shares count only after they were given back."""
    old = node.shares

    def work(client: hvac.Client) -> None:
        begun = client.sys.start_rekey(secret_shares=3, secret_threshold=2, require_verification=True)
        assert begun["verification_required"] is True
        made = client.sys.rekey_multi(old, nonce=begun["nonce"])
        nonce = made["verification_nonce"]
        assert client.sys.read_rekey_progress()["verification_nonce"] == nonce
        found = client.sys.read_rekey_verify_progress()
        assert (found["nonce"], found["t"], found["n"], found["progress"]) == (nonce, 2, 3, 0)
        assert client.sys.rekey_verify(made["keys"][0], nonce=nonce)["progress"] == 1
        client.sys.cancel_rekey_verify()
        again = client.sys.read_rekey_verify_progress()
        assert (again["progress"], again["nonce"] == nonce) == (0, False)
        done = client.sys.rekey_verify_multi(made["keys_base64"], nonce=again["nonce"])
        assert done["complete"] is True
        client.sys.seal()
        client.sys.submit_unseal_keys(made["keys"][1:])
        assert client.sys.is_sealed() is False

    await with_client(node, work)


async def test_recovery_keys_are_told_apart(node: Node) -> None:
    """A cluster with unseal shares has no recovery shares to make anew."""

    def work(client: hvac.Client) -> None:
        with pytest.raises(exceptions.InvalidRequest, match="no recovery shares"):
            client.sys.start_rekey(secret_shares=1, secret_threshold=1, recovery_key=True)
        assert client.sys.read_rekey_progress(recovery_key=True)["started"] is False

    await with_client(node, work)


async def test_generate_root(node: Node) -> None:
    """One-time password, progress, cancel; the decoded token is a root token that can be revoked."""

    def work(client: hvac.Client) -> None:
        assert client.sys.read_root_generation_progress()["started"] is False
        begun = client.sys.start_root_token_generation()
        assert begun["otp_length"] == len(begun["otp"])
        assert client.sys.read_root_generation_progress()["otp"] == ""
        client.sys.cancel_root_generation()
        with pytest.raises(exceptions.InvalidRequest, match="otp"):
            client.sys.start_root_token_generation(otp="short")
        otp = begun["otp"]
        begun = client.sys.start_root_token_generation(otp=otp)
        assert (begun["otp"], begun["progress"], begun["required"]) == ("", 0, 3)
        for share in node.shares[:2]:
            progress = client.sys.generate_root(share, begun["nonce"])
            assert progress["complete"] is False
        done = client.sys.generate_root(node.shares[3], begun["nonce"])
        assert (done["complete"], done["progress"]) == (True, 3)
        assert done["encoded_token"] == done["encoded_root_token"]
        client.token = decode_token(done["encoded_token"], otp)
        assert client.lookup_token()["data"]["policies"] == ["root"]
        client.auth.token.revoke_self()
        with pytest.raises(exceptions.Forbidden):
            client.lookup_token()

    await with_client(node, work)
