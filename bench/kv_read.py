"""``./dev bench kv-read [--json] [--seconds N] [--single-process]``: audited reads of one secret.

Requests a second and latency at 1 and 64 keep-alive connections over HTTPS and loopback HTTP, with a
token of three policies and durable audit, beside a bare ASGI app in the same run: behind our own listeners,
and behind uvicorn as it comes.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from bench._compare import Kind, run


def main(argv: Sequence[str]) -> int:
    """Measure reads; 0 when every request was answered."""
    return run(Kind(name="kv-read", target="/v1/secrets/bench/read"), argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
