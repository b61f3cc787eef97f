"""Load on one HTTP address: by ``wrk`` where it is installed, else by our own generator.

Tokens travel in a private script file or on standard input, never in arguments.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path

KEYS = 512
"""Writes go round this many paths, so that no two of them meet on one path at the same time."""

_SCRIPT = """
local target = %(target)s
local body = %(body)s
local headers = { ["X-Vault-Token"] = %(token)s, ["Content-Type"] = "application/json" }
local number = 0

function request()
  if body == "" then return wrk.format("GET", target, headers) end
  if not %(numbered)s then return wrk.format("POST", target, headers, body) end
  number = (number + 1) %% %(keys)d
  return wrk.format("POST", target .. number, headers, body)
end

function done(summary, latency)
  local errors = summary.errors
  local form = 'RESULT {"requests": %%d, "micros": %%d, "p50": %%.1f, "p99": %%.1f, "failed": %%d}\\n'
  io.write(string.format(form,
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
"""


@dataclass(frozen=True, kw_only=True)
class Load:
    """What to send.

    Attributes:
        base: scheme, host and port.
        target: the path; on writes a number is appended, if they are numbered.
        body: JSON to POST, or nothing for reads.
        connections: keep-alive connections, each with one request under way.
        seconds: how long.
        numbered: whether each write has a path of its own, of ``KEYS`` many.
        token: hidden in ``repr``.
    """

    base: str
    target: str
    connections: int
    seconds: float
    body: str = ""
    numbered: bool = True
    token: str = field(default="none", repr=False)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What came of it. Latencies in milliseconds; ``failed`` counts anything but 2xx."""

    rate: float
    p50: float
    p99: float
    requests: int
    failed: int


def measure(load: Load) -> Measured:
    """Apply a load and return what it measured.

    Raises:
        RuntimeError: the generator did not work.
    """
    return _wrk(load) if shutil.which("wrk") else _own(load)


def generator() -> str:
    """The generator in use, for reports."""
    return "wrk" if shutil.which("wrk") else "bench._generator"


def _wrk(load: Load) -> Measured:
    words = {"target": load.target, "body": load.body, "token": load.token}
    quoted = {name: json.dumps(word) for name, word in words.items()}
    script = _SCRIPT % {**quoted, "keys": KEYS, "numbered": "true" if load.numbered else "false"}
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:  # 0600
        file.write(script)
        file.flush()
        argv = [
            "wrk",
            "-t1",
            f"-c{load.connections}",
            f"-d{load.seconds:g}s",
            "--timeout",
            "10s",
            "-s",
            file.name,
        ]
        done = subprocess.run(
            [*argv, load.base], capture_output=True, text=True, timeout=load.seconds + 60, check=False
        )
    return _read(done)


def _own(load: Load) -> Measured:
    done = subprocess.run(
        [sys.executable, "-m", "bench._generator"],
        input=json.dumps(asdict(load)),
        cwd=Path(__file__).resolve().parents[1],
        capture_output=True,
        text=True,
        timeout=load.seconds + 60,
        check=False,
    )
    return _read(done)


def _read(done: subprocess.CompletedProcess[str]) -> Measured:
    line = next((line for line in done.stdout.splitlines() if line.startswith("RESULT ")), None)
    if line is None:
        raise RuntimeError(f"the load generator failed: {done.stdout} {done.stderr}")
    found = json.loads(line.removeprefix("RESULT "))
    return Measured(
        rate=found["requests"] / (found["micros"] / 1e6),
        p50=found["p50"] / 1000,
        p99=found["p99"] / 1000,
        requests=found["requests"],
        failed=found["failed"],
    )
