"""A second serving process whose engines lease out files of a folder: it may die where the folder says."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from secrethub.engines.kinds import engines
from tests.gateway.lease_engine import FolderEngine
from tests.gateway.second_process import main

if __name__ == "__main__":
    kinds = {**engines(), "folder": FolderEngine(Path(sys.argv[3]))}
    asyncio.run(main(sys.argv[1], sys.argv[2], kinds))
