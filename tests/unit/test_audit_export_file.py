"""Lines of an exported ledger: what they hold, and that no name becomes a formula."""

from __future__ import annotations

import csv
import io
import json

import pytest

from secrethub.audit.chain import Chain
from secrethub.audit.event import Entry, Record, entry_hash
from secrethub.audit.export_file import csv_lines, end_line, entry_line, header_line


def test_an_entry_can_be_hashed_again() -> None:
    """What a line holds gives the entry's digest again, whatever its texts are."""
    chain = Chain("s", b"k" * 32)
    before = chain.head
    record = chain.append(at=5, kind="request", actor="tökén\n\u202e", path='a"b', detail='{"a":[1,null]}')
    line = entry_line(record)
    assert line.endswith(b"}\n")
    assert line.count(b"\n") == 1
    fields = json.loads(line)
    assert fields.pop("type") == "entry"
    digest, signature = bytes.fromhex(fields.pop("hash")), bytes.fromhex(fields.pop("signature"))
    assert Record(Entry(**fields), digest, signature) == record
    assert entry_hash(before, Entry(**fields)) == digest


def test_the_first_and_the_last_line() -> None:
    """The header says whether entries are missing on purpose, the end how many there were."""
    assert json.loads(header_line("c", 7)) == {
        "type": "header",
        "format": "secrethub-audit/1",
        "cluster_id": "c",
        "exported_at": 7,
    }
    assert json.loads(header_line("c", 7, selection=True))["format"] == "secrethub-audit-selection/1"
    assert json.loads(end_line(3)) == {"type": "end", "entries": 3}


@pytest.mark.parametrize(
    "cell",
    [
        "=1+1",
        "+1",
        "-1",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        "\n=1",
        "  =1",
        "＝1",
        '=HYPERLINK("http://x","y")',
        "\xa0=1",
    ],
)
def test_no_formulas(cell: str) -> None:
    """What a spreadsheet could take for a formula begins with an apostrophe."""
    rows = list(csv.reader(io.StringIO(csv_lines([[cell]]).decode(), newline="")))
    assert rows == [["'" + cell]]


def test_cells_are_quoted() -> None:
    """Quotes, commas and line ends stay within their cell, and numbers are what they are."""
    cells = ['a"b', "c,d", "e\r\nf", "", "g=h", "'", "é"]
    text = csv_lines([[*cells, -5]]).decode()
    assert next(csv.reader(io.StringIO(text, newline=""))) == [*cells, "-5"]
    assert text.startswith('"a""b","c,d"')
    assert text.endswith("\r\n")
