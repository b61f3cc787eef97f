"""Verifying exports without Core: files in the form of :mod:`secrethub.audit.export_file`, and a public key.

Nobody but the cluster has the key that entries are signed with, so their signatures are not looked at. The
chains are, and the checkpoints vouch for them: an entry that a checkpoint knows cannot have been changed by
anybody. Entries younger than the last checkpoint are counted, and so are streams that begin elsewhere.

Several files are verified as one: segments of an archive in their order, then an export.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated, TypeAlias, cast, overload

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from secrethub.audit.checkpoint import Checkpoint, Signed, is_signed
from secrethub.audit.checkpoint_base import Base, SignedBase
from secrethub.audit.checkpoint_chain import CheckpointVerifier
from secrethub.audit.event import Row, StreamHead
from secrethub.audit.export_file import FORMAT
from secrethub.audit.verification import LedgerReport, LedgerVerifier
from secrethub.audit.witness import Witness, contradicted
from secrethub.errors import InvalidRequest

_PAGE = 2000
_Number: TypeAlias = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class _Line(msgspec.Struct, frozen=True, tag_field="type"):
    """What every line has."""


class _Header(_Line, frozen=True, tag="header"):
    format: str
    cluster_id: str


class _Base(_Line, frozen=True, tag="base"):
    stream: str
    number: _Number
    head: str


class _Checkpoint(_Line, frozen=True, tag="checkpoint"):
    timeline: _Number
    sequence: _Number
    epoch: _Number
    at: _Number
    previous: str
    streams: _Number
    root: str
    heads: tuple[tuple[str, _Number, str], ...]
    signature: str

    def signed(self, cluster: str) -> Signed:
        """Return the checkpoint."""
        made = Checkpoint(
            cluster=cluster,
            timeline=self.timeline,
            sequence=self.sequence,
            epoch=self.epoch,
            at=self.at,
            previous=bytes.fromhex(self.previous),
            streams=self.streams,
            root=bytes.fromhex(self.root),
            heads=tuple(StreamHead(name, number, bytes.fromhex(head)) for name, number, head in self.heads),
        )
        return Signed(made, bytes.fromhex(self.signature))


class _CheckpointBase(_Line, frozen=True, tag="checkpoint-base"):
    timeline: _Number
    sequence: _Number
    epoch: _Number
    link: str
    heads: tuple[tuple[str, _Number, str], ...]
    signature: str

    def signed(self, cluster: str) -> SignedBase:
        """Return the base."""
        made = Base(
            cluster=cluster,
            timeline=self.timeline,
            sequence=self.sequence,
            epoch=self.epoch,
            link=bytes.fromhex(self.link),
            heads=tuple(StreamHead(name, number, bytes.fromhex(head)) for name, number, head in self.heads),
        )
        return SignedBase(made, bytes.fromhex(self.signature))


class _Entry(_Line, frozen=True, tag="entry"):
    stream: str
    number: _Number
    at: _Number
    kind: str
    request_id: str
    actor: str
    operation: str
    path: str
    outcome: str
    reason: str
    client: str
    door: str
    detail: str
    hash: str
    signature: str


class _End(_Line, frozen=True, tag="end"):
    entries: _Number


_AnyLine: TypeAlias = _Header | _Base | _Checkpoint | _CheckpointBase | _Entry | _End
_decode = msgspec.json.Decoder(_AnyLine).decode
_ENTRY = b'{"type":"entry"'


def read_public_key(pem: bytes) -> bytes:
    """Return the notary's public key (32 bytes).

    Raises:
        InvalidRequest: it is no such key.
    """
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise InvalidRequest("not a public key in PEM") from exc
    if not isinstance(key, Ed25519PublicKey):
        raise InvalidRequest("not an Ed25519 public key")
    return key.public_bytes_raw()


def verify_files(
    paths: Sequence[Path],
    public: bytes,
    tell: Callable[[int], None] = lambda _count: None,
    *,
    witness: Witness | None = None,
) -> LedgerReport:
    """Verify what is in the files.

    Args:
        paths: at least one file, plain or compressed with gzip (``.gz``).
        public: the notary's public key, kept from when the cluster was trusted.
        tell: called now and then with the number of entries read.
        witness: what a node or an agent has seen of the ledger; the files must go on from there.

    Raises:
        InvalidRequest: the witness is another ledger's; or a file cannot be verified: cut, a selection,
            another cluster's, or no export; or they have no checkpoint.
        OSError: a file cannot be read.
    """
    cluster = _cluster(paths[0])
    for path in paths[1:]:
        if _cluster(path) != cluster:
            raise InvalidRequest(f"{path}: it is of a different cluster than {paths[0]}")
    chain = CheckpointVerifier(cluster, public)
    if witness is not None and not _is_of(witness, chain.cluster, public):
        raise InvalidRequest("the witness is one of another ledger")
    bases: list[StreamHead] = []
    same: Signed | None = None
    begins: SignedBase | None = None
    for path in paths:
        for line in _beside_entries(path):
            if isinstance(line, _Checkpoint):
                signed = _made(path, line, chain.cluster)
                chain.feed(signed)
                if witness is not None and line.sequence == witness.signed.checkpoint.sequence:
                    same = signed
            elif isinstance(line, _CheckpointBase):
                begins = _made(path, line, chain.cluster)
                chain.begin(begins)
            elif isinstance(line, _Base):
                bases.append(StreamHead(line.stream, line.number, _digest(path, line.head)))
    if chain.last is None and chain.bad is None:
        raise InvalidRequest("no checkpoint is in the files, so nothing vouches for them: an export has them")
    if witness is not None:
        chain.bad = chain.finish() or contradicted(witness, chain.last, same, begins)
    verifier = LedgerVerifier(None, checkpoints=chain, bases=bases, elsewhere=True)
    count = 0
    for path in paths:
        for rows in _rows(path):
            verifier.feed_rows(rows)
            count += len(rows)
            tell(count)
    return verifier.finish()


def _is_of(witness: Witness, cluster: str, public: bytes) -> bool:
    kept = witness.signed
    return witness.public == public and kept.checkpoint.cluster == cluster and is_signed(kept, public)


def _cluster(path: Path) -> str:
    with _open(path) as file:
        line = _read(path, file.readline())
    if not isinstance(line, _Header):
        raise InvalidRequest(f"{path}: not an export of the audit ledger")
    if line.format != FORMAT:
        raise InvalidRequest(f"{path}: {line.format} cannot be verified: entries are missing on purpose")
    return line.cluster_id


def _beside_entries(path: Path) -> Iterator[_AnyLine]:
    """Yield everything but the entries, and check that the file is whole."""
    entries, end = 0, None
    with _open(path) as file:
        for text in file:
            if end is not None:
                raise InvalidRequest(f"{path}: goes on after its end")
            if text.startswith(_ENTRY):
                entries += 1
                continue
            line = _read(path, text)
            if isinstance(line, _Entry):
                entries += 1
            elif isinstance(line, _End):
                end = line
            else:
                yield line
    if end is None or end.entries != entries:
        raise InvalidRequest(f"{path}: it was cut: it does not end as an export does")


def _rows(path: Path) -> Iterator[list[Row]]:
    rows: list[Row] = []
    with _open(path) as file:
        for text in file:
            line = _read(path, text)
            if not isinstance(line, _Entry):
                continue
            *fields, digest, signature = msgspec.structs.astuple(line)
            try:
                rows.append((*fields, bytes.fromhex(digest), bytes.fromhex(signature)))
            except ValueError as exc:
                raise InvalidRequest(f"{path}: stream {line.stream}, entry {line.number}: no digest") from exc
            if len(rows) >= _PAGE:
                yield rows
                rows = []
    if rows:
        yield rows


def _digest(path: Path, text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError as exc:
        raise InvalidRequest(f"{path}: {text[:80]!r} is no digest") from exc


@overload
def _made(path: Path, line: _Checkpoint, cluster: str) -> Signed: ...
@overload
def _made(path: Path, line: _CheckpointBase, cluster: str) -> SignedBase: ...
def _made(path: Path, line: _Checkpoint | _CheckpointBase, cluster: str) -> Signed | SignedBase:
    try:
        return line.signed(cluster)
    except ValueError as exc:
        raise InvalidRequest(f"{path}: checkpoint {line.sequence}: no digest") from exc


def _read(path: Path, text: bytes) -> _AnyLine:
    try:
        line: _AnyLine = _decode(text)
    except msgspec.MsgspecError as exc:
        raise InvalidRequest(f"{path}: {exc}") from exc
    return line


@contextmanager
def _open(path: Path) -> Iterator[IO[bytes]]:
    if path.suffix == ".gz":
        try:
            with gzip.open(path) as file:
                yield cast("IO[bytes]", file)
        except (gzip.BadGzipFile, EOFError) as exc:
            raise InvalidRequest(f"{path}: it was cut, or is not compressed: {exc}") from exc
    else:
        with path.open("rb") as file:
            yield file
