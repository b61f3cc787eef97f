"""A segment of the ledger's archive: a compressed file of entries, and the manifest that says what it is.

The file is an export (:mod:`secrethub.audit.export_file`) of what some streams begin with, as far as that is
still in the database. The manifest names every stream's part by its first and last entry and the digests at
both ends, the file's size and SHA-256, and the manifest before it; it carries a signature of the cluster.

Pure: nothing here stores or fetches.
"""

from __future__ import annotations

import hashlib

import msgspec

from secrethub.audit.event import StreamHead
from secrethub.crypto.digests import equal, mac

FORMAT = "secrethub-audit-segment/1"
_DOMAIN = "secrethub/audit/segment/v1"


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """What a segment has of one stream.

    Attributes:
        stream: its UUID.
        first: number of the first entry.
        last: number of the last one.
        base: digest of the entry before the first one.
        head: digest of the last one.
    """

    stream: str
    first: int
    last: int
    base: str
    head: str

    @property
    def before(self) -> StreamHead:
        """Return the place that the first entry follows."""
        return StreamHead(self.stream, self.first - 1, bytes.fromhex(self.base))

    @property
    def end(self) -> StreamHead:
        """Return the place of the last entry."""
        return StreamHead(self.stream, self.last, bytes.fromhex(self.head))


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a segment is.

    Attributes:
        format: :data:`FORMAT`.
        cluster_id: UUID of the cluster.
        number: of the segment, from 1 without gaps.
        planned_at: microseconds since the epoch.
        since: the instant of the oldest entry.
        until: of the newest one.
        entries: how many there are.
        size: bytes of the compressed file.
        sha256: of the compressed file, in hexadecimal digits.
        previous: SHA-256 of the manifest before this one, empty for the first.
        parts: by stream.
        signature: of the cluster over everything else.
    """

    format: str
    cluster_id: str
    number: int
    planned_at: int
    since: int
    until: int
    entries: int
    size: int
    sha256: str
    previous: str
    parts: tuple[Part, ...]
    signature: str = ""

    def encoded(self) -> bytes:
        """Return the manifest's file."""
        return msgspec.json.encode(self, order="sorted")

    def digest(self) -> str:
        """Return its SHA-256, as the next manifest names it."""
        return hashlib.sha256(self.encoded()).hexdigest()

    def signed(self, key: bytes) -> Manifest:
        """Return it with the cluster's signature."""
        return msgspec.structs.replace(self, signature=_signature(self, key))

    def is_authentic(self, key: bytes) -> bool:
        """Tell whether the cluster signed exactly this."""
        return self.format == FORMAT and equal(_signature(self, key).encode(), self.signature.encode())


def read_manifest(data: bytes) -> Manifest:
    """Return the manifest of a file.

    Raises:
        ValueError: it is none.
    """
    try:
        return msgspec.json.decode(data, type=Manifest)
    except msgspec.MsgspecError as exc:
        raise ValueError("not a manifest") from exc


def file_name(manifest: Manifest) -> str:
    """Return the name of a segment's file.

    It has a part of the file's digest: after an older database was put back numbers are given again, and what
    was archived before must not be overwritten.
    """
    return f"{manifest.number:08d}-{manifest.sha256[:16]}.jsonl.gz"


def manifest_name(manifest: Manifest) -> str:
    """Return the name of a segment's manifest."""
    return f"{manifest.number:08d}-{manifest.sha256[:16]}.manifest.json"


def _signature(manifest: Manifest, key: bytes) -> str:
    plain = msgspec.structs.replace(manifest, signature="")
    return mac(key, _DOMAIN, plain.encoded()).hex()
