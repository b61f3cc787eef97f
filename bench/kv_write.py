"""``./dev bench kv-write [--json] [--seconds N] [--single-process]``: durable, audited writes.

As ``kv-read``, with each request writing a new version of one of 512 secrets.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from bench._compare import SECRET, Kind, run


def main(argv: Sequence[str]) -> int:
    """Measure writes; 0 when every request was answered."""
    return run(Kind(name="kv-write", target="/v1/secrets/bench/w", body=json.dumps({"data": SECRET})), argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
