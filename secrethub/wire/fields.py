"""Kinds of fields in the messages of the agent protocol."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, TypeAlias

from msgspec import Meta

from secrethub.ids import APPLICATION

RequestId: TypeAlias = Annotated[int, Meta(ge=1, le=2**53 - 1)]
"""Chosen by the client, unique among its requests in flight."""
Path: TypeAlias = Annotated[str, Meta(min_length=1, max_length=1024)]
Count: TypeAlias = Annotated[int, Meta(ge=0, le=2**53 - 1)]
Instant: TypeAlias = Annotated[datetime, Meta(tz=True)]

Application: TypeAlias = Annotated[str, Meta(pattern=APPLICATION)]
"""A local application's name in the settings of an agent."""
CheckpointBytes: TypeAlias = Annotated[bytes, Meta(max_length=128 * 1024)]
"""A signed checkpoint of the ledger (``audit/witness.py``)."""
LeaseId: TypeAlias = Annotated[str, Meta(min_length=1, max_length=1152)]
"""A path and what was added to it."""
OrderId: TypeAlias = Annotated[str, Meta(pattern=r"\A[0-9a-f-]{36}/[0-9]{1,15}\Z")]
"""A run of a rotation, the same for all of its steps and for each repetition."""
OrderStep: TypeAlias = Literal["create", "verify", "retire", "undo"]
OrderOutcome: TypeAlias = Literal["done", "failed", "again", "unknown"]
"""``again``: it failed for now; ``unknown``: the host has no such command, and nothing was done."""
