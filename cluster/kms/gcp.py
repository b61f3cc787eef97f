"""Google Cloud KMS: Encrypt and Decrypt with a symmetric key; cluster and slot are associated data.

Used: ``key`` (``projects/…/locations/…/keyRings/…/cryptoKeys/…``), ``endpoint`` (``host:port``) and
``ca_file`` where they differ from Google's, and the service account's key file, ``credentials_file``.
``ambient`` takes Google's application default credentials instead.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import google.auth
import grpc
from google.api_core import exceptions
from google.auth import exceptions as auth_exceptions
from google.cloud import kms_v1
from google.cloud.kms_v1.services.key_management_service.transports import KeyManagementServiceGrpcTransport
from google.oauth2 import service_account

from cluster.kms.files import private_file
from secrethub.errors import DecryptionFailed, Misconfigured, Unavailable
from secrethub.node import KeyServiceSettings
from secrethub.seal.key_services import binding

_SECONDS = 5.0
_SCOPE = "https://www.googleapis.com/auth/cloudkms"


def open_service(settings: KeyServiceSettings) -> GcpKms:
    """Return the key.

    Raises:
        Misconfigured: the settings cannot be used.
    """
    try:
        if settings.ambient:
            credentials, _ = google.auth.default(scopes=[_SCOPE])
        else:
            credentials = service_account.Credentials.from_service_account_file(  # type: ignore[no-untyped-call]
                private_file(settings), scopes=[_SCOPE]
            )
        root = None if settings.ca_file is None else Path(settings.ca_file).read_bytes()
    except (ValueError, OSError, auth_exceptions.GoogleAuthError) as exc:
        raise Misconfigured(f"key_services.{settings.name}: {type(exc).__name__}") from exc
    options: dict[str, Any] = {} if settings.endpoint is None else {"host": settings.endpoint}
    transport = KeyManagementServiceGrpcTransport(
        credentials=credentials,
        ssl_channel_credentials=grpc.ssl_channel_credentials(root),
        always_use_jwt_access=not settings.ambient,
        **options,
    )
    return GcpKms(kms_v1.KeyManagementServiceClient(transport=transport), settings)


class GcpKms:
    """A key of Google Cloud KMS."""

    def __init__(self, client: kms_v1.KeyManagementServiceClient, settings: KeyServiceSettings) -> None:
        self._client = client
        self._name = settings.name
        self._key = settings.key

    def __repr__(self) -> str:
        return f"GcpKms({self._name!r})"

    async def wrap(self, secret: bytes, cluster_id: str, slot_id: str) -> bytes:
        """Return ``secret`` wrapped; see :class:`secrethub.seal.key_services.KeyService`."""
        request = {
            "name": self._key,
            "plaintext": secret,
            "additional_authenticated_data": binding(cluster_id, slot_id),
        }
        return bytes((await self._call(self._client.encrypt, request)).ciphertext)

    async def unwrap(self, wrapped: bytes, cluster_id: str, slot_id: str) -> bytes:
        """Return what was wrapped; see :class:`secrethub.seal.key_services.KeyService`."""
        request = {
            "name": self._key,
            "ciphertext": wrapped,
            "additional_authenticated_data": binding(cluster_id, slot_id),
        }
        return bytes((await self._call(self._client.decrypt, request)).plaintext)

    async def _call(self, method: Callable[..., Any], request: dict[str, Any]) -> Any:
        try:
            return await asyncio.to_thread(method, request=request, timeout=_SECONDS, retry=None)
        except exceptions.InvalidArgument as exc:
            raise DecryptionFailed(f"key service {self._name}: wrapped for something else") from exc
        except (exceptions.GoogleAPICallError, auth_exceptions.GoogleAuthError) as exc:
            raise Unavailable(f"key service {self._name}: {type(exc).__name__}") from exc
