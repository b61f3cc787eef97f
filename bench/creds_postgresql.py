"""``./dev bench creds-postgresql [--json] [--seconds N] [--connections N] [--revocations N] [--single-process]``.

Users of a PostgreSQL of its own, which keeps what it was told (fsync on): made over HTTP, each with a grant,
an intent, a lease and two audit entries; then ended all at once by ``revoke-prefix``.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import secrets
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg

from bench._compare import started
from bench._load import Load, Measured, generator, measure
from cluster.cli.output import Table, render
from cluster.postgres import EmbeddedPostgres
from secrethub.client import Client, ClientSettings
from secrethub.sensitive import Sensitive
