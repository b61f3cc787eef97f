"""Azure Key Vault: an RSA key wraps (RSA-OAEP-256). It binds nothing itself, so what it wraps names the slot.

Used: ``key`` (``https://<vault>/keys/<name>``; with a version, only that one wraps), ``endpoint`` (the
authority to sign in at) and ``ca_file`` where they differ from Microsoft's public cloud, and ``tenant_id``,
``client_id`` and ``client_secret`` of ``credentials_file``, a JSON object. ``ambient`` takes the machine's
managed identity instead.

A wrapped secret names the key's version that wrapped it, never another vault or key.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urlsplit

from azure.core import exceptions
from azure.identity import ClientSecretCredential, ManagedIdentityCredential
from azure.keyvault.keys.crypto import CryptographyClient, KeyWrapAlgorithm

from cluster.kms.files import read_json
from secrethub.crypto.digests import equal
from secrethub.errors import DecryptionFailed, Misconfigured, Unavailable
from secrethub.node import KeyServiceSettings
from secrethub.seal.key_services import binding

_SECONDS = 5
_BINDING = 32
_KEY = re.compile(r"/keys/([0-9A-Za-z-]{1,127})(?:/([0-9a-f]{32}))?")
_VERSION = re.compile(rb"[0-9a-f]{32}")
_BAD_REQUEST = 400

T = TypeVar("T")


def open_service(settings: KeyServiceSettings) -> AzureKeyVault:
    """Return the key.

    Raises:
        Misconfigured: the settings cannot be used.
    """
    url = urlsplit(settings.key)
    if url.scheme != "https" or _KEY.fullmatch(url.path) is None or url.query or url.username:
        raise Misconfigured(f"key_services.{settings.name}: key must be https://<vault>/keys/<name>")
    options: dict[str, Any] = {
        "connection_verify": settings.ca_file or True,
        "connection_timeout": _SECONDS,
        "read_timeout": _SECONDS,
        "retry_total": 0,
    }
    if settings.ambient:
        return AzureKeyVault(ManagedIdentityCredential(**options), options, settings)
    found = read_json(settings, "tenant_id", "client_id", "client_secret")
    signing = dict(options)
    if settings.endpoint is not None:
        # Where Microsoft's own list of authorities is not to be asked.
        signing |= {"authority": settings.endpoint, "disable_instance_discovery": True}
    return AzureKeyVault(ClientSecretCredential(**found, **signing), options, settings)


class AzureKeyVault:
    """A key of Azure Key Vault."""

    def __init__(self, credential: Any, options: dict[str, Any], settings: KeyServiceSettings) -> None:
        self._credential = credential
        self._options = options
        self._name = settings.name
        self._key = settings.key

    def __repr__(self) -> str:
        return f"AzureKeyVault({self._name!r})"

    async def wrap(self, secret: bytes, cluster_id: str, slot_id: str) -> bytes:
        """Return version ‖ ``secret`` wrapped; see :class:`secrethub.seal.key_services.KeyService`."""
        payload = binding(cluster_id, slot_id) + secret

        def work() -> bytes:
            result = self._client(self._key).wrap_key(KeyWrapAlgorithm.rsa_oaep_256, payload)
            return (result.key_id or "").rpartition("/")[2].encode() + bytes(result.encrypted_key)

        wrapped = await self._call(work)
        if _VERSION.match(wrapped) is None:
            raise Unavailable(f"key service {self._name}: it does not tell which version of the key wrapped")
        return wrapped

    async def unwrap(self, wrapped: bytes, cluster_id: str, slot_id: str) -> bytes:
        """Return what was wrapped; see :class:`secrethub.seal.key_services.KeyService`."""
        version = _VERSION.match(wrapped)
        if version is None:
            raise DecryptionFailed(f"key service {self._name}: not a wrapped secret")
        base = "/".join(self._key.split("/")[:5])

        def work() -> bytes:
            client = self._client(f"{base}/{version[0].decode()}")
            return bytes(client.unwrap_key(KeyWrapAlgorithm.rsa_oaep_256, wrapped[version.end() :]).key)

        payload = await self._call(work)
        if not equal(payload[:_BINDING], binding(cluster_id, slot_id)):
            raise DecryptionFailed(f"key service {self._name}: wrapped for something else")
        return payload[_BINDING:]

    def _client(self, key: str) -> CryptographyClient:
        return CryptographyClient(key, self._credential, **self._options)

    async def _call(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.to_thread(work)
        except exceptions.HttpResponseError as exc:
            if exc.status_code == _BAD_REQUEST:
                raise DecryptionFailed(f"key service {self._name}: wrapped for something else") from exc
            raise Unavailable(f"key service {self._name}: status {exc.status_code}") from exc
        except (exceptions.AzureError, ValueError) as exc:
            raise Unavailable(f"key service {self._name}: {type(exc).__name__}") from exc
