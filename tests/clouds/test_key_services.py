"""The clients of key services against their clouds: what opens, what does not, what is never used."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from cluster.kms import Services
from secrethub.errors import DecryptionFailed, Misconfigured, Unavailable
from secrethub.seal.key_services import KeyService
from tests.clouds.cloud import Cloud

CLUSTER, OTHER = "5f0c7127-8a6e-4f0e-9b7e-6d2f3a1c9e10", "0b0e8a6f-6a2f-4f4f-9d0c-0d9e3a5b7c21"
SLOT = "7d2f3a1c-9e10-4f0e-9b7e-5f0c71278a6e"
SECRET = bytes(range(32))


def service_of(cloud: Cloud) -> KeyService:
    """The key, freshly opened."""
    return Services((cloud.settings,)).get(cloud.settings.name, cloud.settings.kind)


async def test_what_was_wrapped_is_given_back(cloud: Cloud) -> None:
    """A secret comes back through a fresh client, and is not to be seen in what is kept."""
    wrapped = await service_of(cloud).wrap(SECRET, CLUSTER, SLOT)
    assert SECRET not in wrapped
    assert await service_of(cloud).unwrap(wrapped, CLUSTER, SLOT) == SECRET


async def test_a_wrapped_secret_is_bound_to_cluster_and_slot(cloud: Cloud) -> None:
    """For another cluster or slot, or damaged, nothing opens."""
    service = service_of(cloud)
    wrapped = await service.wrap(SECRET, CLUSTER, SLOT)
    for blob, cluster, slot in (
        (wrapped, OTHER, SLOT),
        (wrapped, CLUSTER, OTHER),
        (wrapped[:-1] + bytes([wrapped[-1] ^ 1]), CLUSTER, SLOT),
    ):
        with pytest.raises(DecryptionFailed):
            await service.unwrap(blob, cluster, slot)


async def test_a_cloud_that_is_away_is_unavailable(cloud: Cloud) -> None:
    """Without the cloud nothing opens, and that is no statement about the secret."""
    service = service_of(cloud)
    wrapped = await service.wrap(SECRET, CLUSTER, SLOT)
    cloud.close()
    with pytest.raises(Unavailable):
        await service.unwrap(wrapped, CLUSTER, SLOT)
    with pytest.raises(Unavailable):
        await service_of(cloud).wrap(SECRET, CLUSTER, SLOT)


async def test_wrong_credentials_are_refused_and_not_told(cloud: Cloud) -> None:
    """The cloud's refusal is Unavailable; the message holds nothing of the credentials."""
    wrapped = await service_of(cloud).wrap(SECRET, CLUSTER, SLOT)
    cloud.deny()
    held = Path(str(cloud.settings.credentials_file)).read_text()
    with pytest.raises(Unavailable) as refused:
        await service_of(cloud).unwrap(wrapped, CLUSTER, SLOT)
    words = [word for word in held.replace('"', " ").split() if len(word) > 12]
    assert not [word for word in words if word in str(refused.value)]


async def test_credentials_that_were_mended_are_used(cloud: Cloud) -> None:
    """Whoever puts other credentials into the file has them used from the next time on, without a restart."""
    services = Services((cloud.settings,))

    async def unwrapped() -> bytes:
        return await services.get(cloud.settings.name, cloud.settings.kind).unwrap(wrapped, CLUSTER, SLOT)

    wrapped = await services.get(cloud.settings.name, cloud.settings.kind).wrap(SECRET, CLUSTER, SLOT)
    held = Path(str(cloud.settings.credentials_file))
    good = held.read_bytes()
    cloud.deny()
    with pytest.raises(Unavailable):
        await unwrapped()
    held.write_bytes(good)
    assert await unwrapped() == SECRET


async def test_nothing_of_the_surroundings_is_used(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """Good credentials in the environment do not make up for bad ones in the node's settings."""
    held = Path(str(cloud.settings.credentials_file))
    good = held.with_name("good")
    good.touch(0o600)
    good.write_text(held.read_text())
    wrapped = await service_of(cloud).wrap(SECRET, CLUSTER, SLOT)
    cloud.deny()
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(good))
    for line in good.read_text().splitlines():
        name, _, value = line.partition(" = ")
        monkeypatch.setenv(name.upper() if name.startswith("aws_") else "NOTHING_AT_ALL", value)
    monkeypatch.setenv("AWS_PROFILE", "another")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(good))
    monkeypatch.setenv("AZURE_CLIENT_SECRET", good.read_text())
    with pytest.raises(Unavailable):
        await service_of(cloud).unwrap(wrapped, CLUSTER, SLOT)


async def test_a_readable_file_of_credentials_is_refused(cloud: Cloud) -> None:
    """Credentials that others can read are not used, and neither is a file with something else in it."""
    path = Path(str(cloud.settings.credentials_file))
    path.chmod(0o640)
    with pytest.raises(Misconfigured, match="0600"):
        service_of(cloud)
    path.chmod(0o600)
    path.write_text("secret-that-is-no-credential")
    with pytest.raises(Misconfigured) as refused:
        service_of(cloud)
    assert "secret-that" not in str(refused.value)
    path.unlink()
    with pytest.raises(Misconfigured):
        service_of(cloud)


async def test_only_keys_in_the_settings_are_used(cloud: Cloud) -> None:
    """A name or a kind that the settings do not have opens nothing."""
    services = Services((cloud.settings,))
    with pytest.raises(Misconfigured):
        services.get("another", cloud.settings.kind)
    with pytest.raises(Misconfigured):
        services.get(cloud.settings.name, "shamir")
    assert services.kinds() == {cloud.settings.name: cloud.settings.kind}
    if cloud.settings.kind == "azurekeyvault":
        wrong = msgspec.structs.replace(cloud.settings, key="http://kv.vault.test/keys/unseal")
        with pytest.raises(Misconfigured, match="key must be"):
            Services((wrong,)).get("azure", "azurekeyvault")
