"""How the archive is configured: one authenticated row; the secret of S3 in it is sealed to its place."""

from __future__ import annotations

import base64
import re
from typing import Any

import msgspec

from secrethub.crypto.aead import Place
from secrethub.crypto.keyring import Keyring
from secrethub.engines.archive.folder import FolderStore
from secrethub.engines.archive.store import Store, StoreFailed
from secrethub.engines.outbound import Refused, allowed_addresses, parse_url
from secrethub.engines.runtime import Core
from secrethub.errors import InvalidRequest
from secrethub.node import NodeSettings
from secrethub.sensitive import Sensitive
from secrethub.storage.authority import AUDIT_SETTINGS, Row

KEY = "archive"
_SECRET = "secret_access_key"  # noqa: S105 - the name of a field
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PREFIX = re.compile(r"(?:[A-Za-z0-9_.-]{1,64}/){0,8}")
_REGION = re.compile(r"[a-z0-9-]{1,32}")
_ACCESS = re.compile(r"[A-Za-z0-9]{1,128}")


class Archive(msgspec.Struct, frozen=True, kw_only=True):
    """The archive as it is configured. Not shown by ``repr``.

    Attributes:
        uuid: of this configuration; its secret is sealed to it.
        type: ``file`` or ``s3``.
        retention: seconds that entries stay in the ledger.
        segment_entries: entries of a segment, give or take a group.
        path: directory of the files.
        bucket: of S3.
        prefix: in front of every object's name.
        region: of the bucket.
        endpoint: URL of the service.
        access_key_id: who we are there.
        secret_access_key: proves it.
    """

    uuid: str
    type: str
    retention: int
    segment_entries: int
    path: str = ""
    bucket: str = ""
    prefix: str = ""
    region: str = ""
    endpoint: str = ""
    access_key_id: str = ""
    secret_access_key: Sensitive[str] | None = None

    def __repr__(self) -> str:
        return f"Archive(type={self.type!r})"

    def shown(self) -> dict[str, Any]:
        """Return what people may see."""
        names = ("path",) if self.type == "file" else _S3
        return {
            "type": self.type,
            "retention": self.retention,
            "segment_entries": self.segment_entries,
            **{name: getattr(self, name) for name in names},
        }


_S3 = ("bucket", "prefix", "region", "endpoint", "access_key_id")


async def checked(core: Core, archive: Archive) -> None:
    """Check that this node may use the archive.

    Raises:
        InvalidRequest: a setting cannot be.
        StoreFailed: the name of its service is not known.
    """
    if archive.type == "s3":
        for name, pattern in (
            ("bucket", _BUCKET),
            ("prefix", _PREFIX),
            ("region", _REGION),
            ("access_key_id", _ACCESS),
        ):
            if pattern.fullmatch(getattr(archive, name)) is None:
                raise InvalidRequest(f"{name} is not one of S3's")
        if archive.secret_access_key is None:
            raise InvalidRequest("s3 needs secret_access_key: nothing of the server's own is used")
        await _check_endpoint(core.settings, archive.endpoint)
    else:
        FolderStore(core.settings, archive.path)


async def store_of(core: Core, archive: Archive) -> Store:
    """Return the archive's store.

    Raises:
        InvalidRequest, StoreFailed: as :func:`checked`.
    """
    await checked(core, archive)
    if archive.type == "file":
        return FolderStore(core.settings, archive.path)
    assert archive.secret_access_key is not None
    # Large, and needed by nobody else.
    from secrethub.engines.archive.s3 import S3Store

    return S3Store(
        bucket=archive.bucket,
        prefix=archive.prefix,
        region=archive.region,
        endpoint=archive.endpoint,
        access_key_id=archive.access_key_id,
        secret_access_key=archive.secret_access_key,
    )


async def configured(core: Core) -> Archive | None:
    """Return the archive, or None.

    Raises:
        IntegrityFailure: its row is not authentic.
    """
    row = await core.authority.get(AUDIT_SETTINGS, KEY)
    return None if row is None else archive_of(core.keyring(), row)


def body_of(keyring: Keyring, archive: Archive) -> dict[str, Any]:
    """Return the archive as it is kept."""
    sealed = ""
    if archive.secret_access_key is not None:
        secret = keyring.seal(archive.secret_access_key.reveal().encode(), _place(archive.uuid))
        sealed = base64.b64encode(secret).decode("ascii")
    names = ("uuid", "type", "retention", "segment_entries", "path", *_S3)
    return {**{name: getattr(archive, name) for name in names}, _SECRET: sealed}


def archive_of(keyring: Keyring, row: Row) -> Archive:
    """Return the archive that a row describes."""
    body = dict(row.body)
    sealed = body.pop(_SECRET)
    secret = None
    if sealed:
        secret = Sensitive(keyring.open(base64.b64decode(sealed), _place(body["uuid"])).decode())
    return Archive(**body, secret_access_key=secret)


def _place(uuid: str) -> Place:
    return Place(table=AUDIT_SETTINGS.name, column=_SECRET, row=uuid, version=1)


async def _check_endpoint(settings: NodeSettings, endpoint: str) -> None:
    """Check that the service may be connected to.

    Raises:
        InvalidRequest: it may not, or it is no URL.
        StoreFailed: its name is not known now.
    """
    target = parse_url(endpoint)
    if target.path != "/":
        raise Refused("an endpoint is a URL without a path")
    try:
        await allowed_addresses(settings, target.host, target.port, secure=target.scheme == "https")
    except OSError as exc:
        raise StoreFailed(f"the name {target.host} is not known") from exc
