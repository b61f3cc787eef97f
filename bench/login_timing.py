"""``./dev bench login-timing [--json] [--samples N] [--single-process]``: do failed logins take equally long?

An unknown RoleID, a wrong SecretID and an expired one, in random order over one connection, and each pair of
samples in a two-sided Mann-Whitney test (normal approximation with ties). The exit code is 1 when a pair
differs at p < 0.001: then somebody could tell them apart from here.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import math
import random
import statistics
import sys
import time
import uuid
from collections.abc import Sequence
from urllib.parse import urlsplit

from bench._compare import started
from bench._machine import LOGIN, Machine, machine
from cluster.cli.output import Table, render

_KINDS = ("unknown role id", "wrong secret id", "expired secret id")
_LEVEL = 0.001
_WARM_UP = 60


def main(argv: Sequence[str]) -> int:
    """Measure and test; 1 when a pair of kinds can be told apart."""
    parser = argparse.ArgumentParser(prog="./dev bench login-timing")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--samples", type=int, default=700, metavar="N", help="of each kind (700, at most 800)"
    )
    parser.add_argument("--single-process", action="store_true", help="without Ray")
    options = parser.parse_args(argv)
    if options.samples > 800:
        parser.error("more than 800 of each kind would meet the throttle")
    with started(single=options.single_process) as (addresses, _token):
        known = machine(addresses)
        time.sleep(2)  # until the SecretID has expired
        found = _samples(addresses.api, known, options.samples)
    pairs = {
        (one, other): mann_whitney(found[one], found[other])
        for one, other in itertools.combinations(_KINDS, 2)
    }
    medians = {kind: statistics.median(times) * 1e3 for kind, times in found.items()}
    if options.json:
        tests = [{"kinds": pair, "p": p} for pair, p in pairs.items()]
        print(json.dumps({"bench": "login-timing", "median_ms": medians, "tests": tests}, indent=2))
    else:
        print(_table(medians, pairs))
    return 1 if min(pairs.values()) < _LEVEL else 0


def mann_whitney(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the two-sided p-value of the Mann-Whitney U test.

    Args:
        one: a sample, at least some twenty values.
        other: another one.
    """
    joined = sorted([(value, 0) for value in one] + [(value, 1) for value in other])
    ranks, ties, at = 0.0, 0.0, 0
    while at < len(joined):
        end = at
        while end < len(joined) and joined[end][0] == joined[at][0]:
            end += 1
        rank = (at + 1 + end) / 2
        ranks += rank * sum(1 for _, sample in joined[at:end] if sample == 0)
        ties += (end - at) ** 3 - (end - at)
        at = end
    n, m, total = len(one), len(other), len(joined)
    u = ranks - n * (n + 1) / 2
    spread = math.sqrt(n * m / 12 * (total + 1 - ties / (total * (total - 1))))
    return math.erfc(max(0.0, abs(u - n * m / 2) - 0.5) / spread / math.sqrt(2)) if spread else 1.0


def _samples(base: str, known: Machine, count: int) -> dict[str, list[float]]:
    where = urlsplit(base)
    connection = http.client.HTTPConnection(where.hostname or "", where.port or 80, timeout=30)
    order = [kind for kind in _KINDS for _ in range(count)]
    random.shuffle(order)
    times: dict[str, list[float]] = {kind: [] for kind in _KINDS}
    for number, kind in enumerate([*_KINDS * (_WARM_UP // len(_KINDS)), *order]):
        pair = {
            "unknown role id": (str(uuid.uuid4()), known.secret_id),
            "wrong secret id": (known.role_id, str(uuid.uuid4())),
            "expired secret id": (known.role_id, known.expired),
        }[kind]
        body = json.dumps({"role_id": pair[0], "secret_id": pair[1]})
        before = time.perf_counter()
        connection.request("POST", LOGIN, body)
        answer = connection.getresponse()
        content = answer.read()
        took = time.perf_counter() - before
        if answer.status != 400 or b"invalid role or secret ID" not in content:
            raise RuntimeError(f"a login that should fail was answered {answer.status}")
        if number >= _WARM_UP:
            times[kind].append(took)
    connection.close()
    return times


def _table(medians: dict[str, float], pairs: dict[tuple[str, str], float]) -> str:
    kinds = Table(
        columns=("Failed login", "median ms"),
        rows=tuple((kind, f"{median:.3f}") for kind, median in medians.items()),
    )
    tests = Table(
        columns=("Pair", "p (Mann-Whitney)", "Difference"),
        rows=tuple(
            (f"{one} / {other}", f"{p:.4f}", "measurable" if p < _LEVEL else "none that can be measured")
            for (one, other), p in pairs.items()
        ),
    )
    return "\n" + render({}, "table", [kinds, tests])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
