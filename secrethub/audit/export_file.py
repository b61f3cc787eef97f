"""Entries outside the database: JSON Lines that can be verified anywhere, and CSV for spreadsheets.

A JSON Lines file is UTF-8, one object a line, told apart by ``type``:

* ``header``: ``format``, ``cluster_id``, ``exported_at`` (microseconds since the epoch). The first line. The
  format :data:`SELECTION` is that of a file with gaps, which nobody can verify as a whole.
* ``base``: ``stream``, ``number``, ``head``: what comes next of this stream follows the entry with this
  number and digest, which is elsewhere.
* ``checkpoint-base``: every field of :class:`~secrethub.audit.checkpoint_base.Base` but the cluster, and
  ``signature``: where the checkpoints begin, if older ones were pruned. Before them.
* ``checkpoint``: every field of :class:`~secrethub.audit.checkpoint.Checkpoint` but the cluster, digests in
  hexadecimal digits, and ``signature``. Before the entries, in order.
* ``entry``: every field of :class:`~secrethub.audit.event.Entry` by its name, with the text of ``detail`` as
  it was hashed; ``hash`` and ``signature`` in hexadecimal digits. In order of streams and numbers.
* ``end``: ``entries``, how many there were. The last line: without it the file was cut.

Pure: nothing here reads or writes files.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from typing import Any

import msgspec

from secrethub.audit.checkpoint import Signed
from secrethub.audit.checkpoint_base import SignedBase
from secrethub.audit.event import Entry, Record, StreamHead

FORMAT = "secrethub-audit/1"
SELECTION = "secrethub-audit-selection/1"

_FIELDS = Entry.__struct_fields__
_FORMULA = frozenset("=+-@＝＋－＠\t\r\n")
"""What a spreadsheet may take for the beginning of a formula (OWASP, CSV injection)."""


def header_line(cluster_id: str, at: int, *, selection: bool = False) -> bytes:
    """Return the first line.

    Args:
        cluster_id: UUID of the cluster.
        at: microseconds since the epoch.
        selection: entries are missing on purpose.
    """
    return _line(
        {
            "type": "header",
            "format": SELECTION if selection else FORMAT,
            "cluster_id": cluster_id,
            "exported_at": at,
        }
    )


def base_line(head: StreamHead) -> bytes:
    """Return the line before a stream's first entry when that does not have the number 1."""
    return _line({"type": "base", "stream": head.stream, "number": head.number, "head": head.head.hex()})


def checkpoint_base_line(signed: SignedBase) -> bytes:
    """Return the line of what stands for pruned checkpoints."""
    base = signed.base
    return _line(
        {
            "type": "checkpoint-base",
            "timeline": base.timeline,
            "sequence": base.sequence,
            "epoch": base.epoch,
            "link": base.link.hex(),
            "heads": [[head.stream, head.number, head.head.hex()] for head in base.heads],
            "signature": signed.signature.hex(),
        }
    )


def checkpoint_line(signed: Signed) -> bytes:
    """Return the line of a checkpoint."""
    c = signed.checkpoint
    return _line(
        {
            "type": "checkpoint",
            "timeline": c.timeline,
            "sequence": c.sequence,
            "epoch": c.epoch,
            "at": c.at,
            "previous": c.previous.hex(),
            "streams": c.streams,
            "root": c.root.hex(),
            "heads": [[head.stream, head.number, head.head.hex()] for head in c.heads],
            "signature": signed.signature.hex(),
        }
    )


def entry_line(record: Record) -> bytes:
    """Return the line of an entry."""
    fields = dict(zip(_FIELDS, msgspec.structs.astuple(record.entry), strict=True))
    return _line({"type": "entry", **fields, "hash": record.hash.hex(), "signature": record.signature.hex()})


def end_line(entries: int) -> bytes:
    """Return the last line."""
    return _line({"type": "end", "entries": entries})


def csv_lines(rows: Iterable[Iterable[str | int]]) -> bytes:
    """Return rows as CSV (RFC 4180), every cell quoted.

    A text that a spreadsheet would take for a formula gets an apostrophe in front: what somebody called his
    token must not run on an auditor's desk.
    """
    buffer = io.StringIO(newline="")
    csv.writer(buffer, quoting=csv.QUOTE_ALL, lineterminator="\r\n").writerows(
        [_harmless(cell) for cell in row] for row in rows
    )
    return buffer.getvalue().encode()


def _harmless(cell: str | int) -> str | int:
    if isinstance(cell, int):
        return cell
    return f"'{cell}" if cell[:1] in _FORMULA or cell.lstrip()[:1] in _FORMULA else cell


def _line(value: dict[str, Any]) -> bytes:
    return msgspec.json.encode(value) + b"\n"
