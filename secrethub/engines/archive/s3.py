"""Segments as objects in S3, with the configured credentials and no others (``engines/boto.py``)."""

from __future__ import annotations

from typing import IO

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from secrethub.engines.archive.store import StoreFailed
from secrethub.engines.boto import client
from secrethub.sensitive import Sensitive

_CHUNK = 1 << 20
_MISSING = frozenset({"404", "NoSuchKey", "NotFound"})


class S3Store:
    """A bucket, or a part of one by a prefix."""

    def __init__(
        self,
        *,
        bucket: str,
        prefix: str,
        region: str,
        endpoint: str,
        access_key_id: str,
        secret_access_key: Sensitive[str],
    ) -> None:
        """Prepare; nothing is connected to yet.

        Args:
            bucket: its name.
            prefix: in front of every name.
            region: of the bucket.
            endpoint: URL of the service.
            access_key_id: who we are there.
            secret_access_key: proves it.
        """
        self._bucket = bucket
        self._prefix = prefix
        self._client = client(
            "s3",
            region=region,
            endpoint=endpoint,
            access_key=access_key_id,
            secret_key=secret_access_key,
            config=Config(
                signature_version="s3v4",
                s3={"addressing_style": "path"},
                connect_timeout=5,
                read_timeout=20,
                retries={"max_attempts": 2, "mode": "standard"},
            ),
        )

    def put(self, name: str, source: IO[bytes]) -> None:
        """Put an object; the service checks its SHA-256."""
        try:
            self._client.put_object(
                Bucket=self._bucket, Key=self._prefix + name, Body=source, ChecksumAlgorithm="SHA256"
            )
        except (ClientError, BotoCoreError) as exc:
            raise StoreFailed(self._reason(name, exc)) from exc

    def get(self, name: str, target: IO[bytes], limit: int) -> bool:
        """Read an object."""
        try:
            answer = self._client.get_object(Bucket=self._bucket, Key=self._prefix + name)
            if answer["ContentLength"] > limit:
                raise StoreFailed(f"{self._prefix}{name} is not what was put there")
            for chunk in answer["Body"].iter_chunks(_CHUNK):
                target.write(chunk)
        except ClientError as exc:
            if exc.response.get("Error", {}).get("Code") in _MISSING:
                return False
            raise StoreFailed(self._reason(name, exc)) from exc
        except BotoCoreError as exc:
            raise StoreFailed(self._reason(name, exc)) from exc
        return True

    def _reason(self, name: str, exc: Exception) -> str:
        # Never the library's own text: it may repeat what was sent.
        code = exc.response.get("Error", {}).get("Code") if isinstance(exc, ClientError) else None
        return f"s3://{self._bucket}/{self._prefix}{name}: {code or type(exc).__name__}"
