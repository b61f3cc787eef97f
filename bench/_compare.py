"""SecretHub beside a bare ASGI app, in one run: the frame of ``kv-read`` and ``kv-write``."""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench._bare import serving
from bench._load import Load, Measured, generator, measure
from cluster.cli.output import Table, render
from cluster.demo.core import Addresses, Core
from cluster.demo.processes import adopt_orphans, end_rest
from secrethub.client import Client, ClientSettings
from secrethub.sensitive import Sensitive

CONNECTIONS = (1, 64)
DOORS = ("4443 (TLS)", "4000")
SECRET = {"user": "app", "password": "x" * 24}
_WARM_UP_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What is measured.

    Attributes:
        name: for the report.
        target: the path that the load calls.
        body: what it writes, or nothing.
    """

    name: str
    target: str
    body: str = ""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One door with one number of connections: ours and the bare app's, by our listeners and by uvicorn's."""

    door: str
    connections: int
    ours: Measured
    bare: Measured
    uvicorn: Measured

    @property
    def ratio(self) -> float:
        """Our rate as a share of the bare app's behind our own listeners."""
        return self.ours.rate / self.bare.rate

    @property
    def uvicorn_ratio(self) -> float:
        """Our rate as a share of the bare app's behind uvicorn as it comes."""
        return self.ours.rate / self.uvicorn.rate


def run(kind: Kind, argv: Sequence[str]) -> int:
    """Measure and report; 1 when any request failed.

    Args:
        kind: reads or writes.
        argv: ``--json``, ``--seconds N``, ``--single-process``.
    """
    parser = argparse.ArgumentParser(prog=f"./dev bench {kind.name}")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--seconds", type=float, default=5.0, metavar="N", help="of each measurement (5)")
    parser.add_argument("--single-process", action="store_true", help="without Ray, ours and the bare app")
    options = parser.parse_args(argv)
    say: Callable[[str], Any] = (lambda _text: None) if options.json else print
    say(f"{kind.name}: load by {generator()}; SecretHub alone first, then a bare ASGI app alone")
    with started(single=options.single_process) as (addresses, token):
        say("  SecretHub …")
        ours = _measured(kind, options.seconds, (addresses.api_tls, addresses.api), token)
    with serving(ray=not options.single_process) as apps:
        say("  the bare app …")
        bare = _measured(kind, options.seconds, (apps["https"], apps["http"]))
        uvicorn = _measured(kind, options.seconds, (apps["uvicorn-https"], apps["uvicorn-http"]))
    lines = [
        Line(door=DOORS[door], connections=connections, ours=one, bare=bare[at], uvicorn=uvicorn[at])
        for at, one in ours.items()
        for door, connections in (at,)
    ]
    failed = sum(line.ours.failed + line.bare.failed + line.uvicorn.failed for line in lines)
    print(_json(kind, lines, options) if options.json else _table(lines))
    if failed:
        print(f"{failed} requests failed", file=sys.stderr)
    return 1 if failed else 0


@contextlib.contextmanager
def started(*, single: bool, options: Sequence[str] = ()) -> Iterator[tuple[Addresses, str]]:
    """Start ``secrethub dev`` in a temporary folder, with a secret and a token of three policies."""
    adopt_orphans()
    folder = Path(tempfile.mkdtemp(prefix="sh-"))
    folder.chmod(0o711)
    core = Core(folder, *(["--single-process"] if single else []), *options)
    try:
        core.wait()
        addresses = core.addresses()
        with Client(
            ClientSettings(address=addresses.api, token=Sensitive(addresses.root_token or ""))
        ) as client:
            token = _prepare(client)
        yield addresses, token
    finally:
        core.stop()
        end_rest()
        shutil.rmtree(folder, ignore_errors=True)


def _prepare(client: Client) -> str:
    """Write three policies, of which the last one looked at allows; a secret; return a token."""
    names = ("bench-a", "bench-b", "bench-c")
    for name, paths in zip(names, (["secrets/a/*"], ["secrets/b/**"], ["secrets/bench/**"]), strict=True):
        statement = {"effect": "allow", "paths": paths, "capabilities": ["create", "read", "update"]}
        client.write(f"sys/policies/acl/{name}", {"policy": {"version": "1", "statements": [statement]}})
    client.write("secrets/bench/read", {"data": SECRET})
    made = client.write(
        "auth/token/create", {"policies": list(names), "no_default_policy": True, "ttl": "1h"}
    ).auth
    assert made is not None
    return str(made["client_token"])


def _measured(
    kind: Kind, seconds: float, bases: Sequence[str], token: str = "none"
) -> dict[tuple[int, int], Measured]:
    """Return what was measured by the number of the door and of connections; each is warmed up first."""
    found = {}
    for door, base in enumerate(bases):
        for connections in CONNECTIONS:
            for duration in (_WARM_UP_SECONDS, seconds):
                load = Load(
                    base=base,
                    target=kind.target,
                    body=kind.body,
                    token=token,
                    connections=connections,
                    seconds=duration,
                )
                found[door, connections] = measure(load)
    return found


def _table(lines: Sequence[Line]) -> str:
    columns = (
        "Door",
        "Connections",
        "req/s",
        "p50 ms",
        "p99 ms",
        "bare req/s",
        "bare p50",
        "bare p99",
        "Ratio",
        "uvicorn req/s",
        "Ratio",
    )
    rows = tuple(
        (
            line.door,
            str(line.connections),
            *(
                word
                for m in (line.ours, line.bare)
                for word in (f"{m.rate:,.0f}", f"{m.p50:.2f}", f"{m.p99:.2f}")
            ),
            f"{line.ratio:.2f}",
            f"{line.uvicorn.rate:,.0f}",
            f"{line.uvicorn_ratio:.2f}",
        )
        for line in lines
    )
    return "\n" + render({}, "table", [Table(columns=columns, rows=rows)])


def _json(kind: Kind, lines: Sequence[Line], options: argparse.Namespace) -> str:
    return json.dumps(
        {
            "bench": kind.name,
            "load": generator(),
            "seconds": options.seconds,
            "single_process": options.single_process,
            "results": [
                {**asdict(line), "ratio": line.ratio, "uvicorn_ratio": line.uvicorn_ratio} for line in lines
            ],
        },
        indent=2,
    )
