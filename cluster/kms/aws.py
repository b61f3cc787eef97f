"""AWS KMS: Encrypt and Decrypt with a symmetric key; cluster and slot are the encryption context.

Used: ``key`` (id, ARN or alias), ``region``, ``endpoint`` and ``ca_file`` where they differ from Amazon's,
and ``aws_access_key_id``, ``aws_secret_access_key`` and ``aws_session_token`` of the section ``default`` of
``credentials_file``. Without ``ambient`` nothing is taken from the environment, from files of AWS's tools
or from the instance.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

import boto3
import botocore.config
import botocore.exceptions
import botocore.session

from cluster.kms.files import read_profile
from secrethub.errors import DecryptionFailed, Misconfigured, Unavailable
from secrethub.node import KeyServiceSettings
from secrethub.seal.key_services import context

_CONNECT_SECONDS = 3
_ANSWER_SECONDS = 5
_NOTHING = {
    name: (None, None, value, None)
    for name, value in (("profile", None), ("config_file", os.devnull), ("credentials_file", os.devnull))
}
"""Neither variables nor files of AWS's tools (name, variable, default, conversion)."""
_FOREIGN = frozenset({"InvalidCiphertextException", "IncorrectKeyException"})


def open_service(settings: KeyServiceSettings) -> AwsKms:
    """Return the key.

    Raises:
        Misconfigured: the settings cannot be used.
    """
    if settings.region is None:
        raise Misconfigured(f"key_services.{settings.name}: region is needed")
    config = botocore.config.Config(
        connect_timeout=_CONNECT_SECONDS,
        read_timeout=_ANSWER_SECONDS,
        retries={"total_max_attempts": 1},
        ignore_configured_endpoint_urls=not settings.ambient,
    )
    secrets = {}
    inner = botocore.session.Session(session_vars=None if settings.ambient else _NOTHING)
    if not settings.ambient:
        found = read_profile(settings)
        names = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
        secrets = {name: found[name] for name in names if found.get(name)}
        if not secrets.keys() >= set(names[:2]):
            raise Misconfigured(
                f"key_services.{settings.name}: credentials_file lacks {', '.join(names[:2])}"
            )
    session = boto3.session.Session(botocore_session=inner, region_name=settings.region, **secrets)
    client = session.client(
        "kms", config=config, endpoint_url=settings.endpoint, verify=settings.ca_file or None
    )
    return AwsKms(client, settings)


class AwsKms:
    """A key of AWS KMS."""

    def __init__(self, client: Any, settings: KeyServiceSettings) -> None:
        self._client = client
        self._name = settings.name
        self._key = settings.key

    def __repr__(self) -> str:
        return f"AwsKms({self._name!r})"

    async def wrap(self, secret: bytes, cluster_id: str, slot_id: str) -> bytes:
        """Return ``secret`` wrapped; see :class:`secrethub.seal.key_services.KeyService`."""
        answer = await self._call(
            "encrypt", KeyId=self._key, Plaintext=secret, EncryptionContext=context(cluster_id, slot_id)
        )
        return bytes(answer["CiphertextBlob"])

    async def unwrap(self, wrapped: bytes, cluster_id: str, slot_id: str) -> bytes:
        """Return what was wrapped; see :class:`secrethub.seal.key_services.KeyService`."""
        answer = await self._call(
            "decrypt", KeyId=self._key, CiphertextBlob=wrapped, EncryptionContext=context(cluster_id, slot_id)
        )
        return bytes(answer["Plaintext"])

    async def _call(self, method: str, **arguments: Any) -> Any:
        try:
            return await asyncio.to_thread(getattr(self._client, method), **arguments)
        except botocore.exceptions.ClientError as exc:
            code = exc.response.get("Error", {}).get("Code", "")
            if code in _FOREIGN:
                raise DecryptionFailed(f"key service {self._name}: wrapped for something else") from exc
            raise Unavailable(f"key service {self._name}: {code or 'refused'}") from exc
        except (botocore.exceptions.BotoCoreError, OSError) as exc:
            raise Unavailable(f"key service {self._name}: {type(exc).__name__}") from exc
