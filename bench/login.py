"""``./dev bench login [--json] [--seconds N] [--connections N] [--single-process]``: AppRole logins.

Each login is counted, audited and durable, and makes a token. All of them use one SecretID.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

from bench._compare import started
from bench._load import Load, Measured, generator, measure
from bench._machine import LOGIN, machine
from cluster.cli.output import Table, render

_WARM_UP_SECONDS = 1.0


def main(argv: Sequence[str]) -> int:
    """Measure logins; 0 when every one succeeded."""
    parser = argparse.ArgumentParser(prog="./dev bench login")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--seconds", type=float, default=5.0, metavar="N", help="of each measurement (5)")
    parser.add_argument("--connections", type=int, default=64, metavar="N", help="(64)")
    parser.add_argument("--single-process", action="store_true", help="without Ray")
    options = parser.parse_args(argv)
    if not options.json:
        print(f"login: starting SecretHub; load by {generator()}")
    found: dict[str, Measured] = {}
    with started(single=options.single_process) as (addresses, _token):
        known = machine(addresses)
        body = json.dumps({"role_id": known.role_id, "secret_id": known.secret_id})
        for door, base in (("4443 (TLS)", addresses.api_tls), ("4000", addresses.api)):
            for seconds in (_WARM_UP_SECONDS, options.seconds):
                load = Load(
                    base=base,
                    target=LOGIN,
                    body=body,
                    numbered=False,
                    connections=options.connections,
                    seconds=seconds,
                )
                found[door] = measure(load)
    print(_json(found, options) if options.json else _table(found, options.connections))
    failed = sum(one.failed for one in found.values())
    if failed:
        print(f"{failed} logins failed", file=sys.stderr)
    return 1 if failed else 0


def _table(found: dict[str, Measured], connections: int) -> str:
    rows = tuple(
        (door, str(connections), f"{one.rate:,.0f}", f"{one.p50:.2f}", f"{one.p99:.2f}")
        for door, one in found.items()
    )
    columns = ("Door", "Connections", "logins/s", "p50 ms", "p99 ms")
    return "\n" + render({}, "table", [Table(columns=columns, rows=rows)])


def _json(found: dict[str, Measured], options: argparse.Namespace) -> str:
    results = [{"door": door, **asdict(one)} for door, one in found.items()]
    told = {"seconds": options.seconds, "connections": options.connections, "results": results}
    return json.dumps({"bench": "login", "load": generator(), **told}, indent=2)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
