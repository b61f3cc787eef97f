"""How long a serving process waits for others, and how often it looks again."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """Seconds."""

    head: float = 15.0
    """For a request's head to arrive, and for a body that nobody waits for to end."""
    body: float = 30.0
    """For a request's body to arrive: its size is bounded, so only who wants to is slower."""
    linger: float = 2.0
    """For a peer that was refused to read why, before its connection is reset."""
    certificate_retry: float = 5.0
    """Between attempts to renew the listener's certificate, which is valid for long after the first."""
    metrics_port: float = 2.0
    """Between attempts to take over the node's metrics port; scrapers come several times a minute."""
    metrics_answer: float = 2.0
    """For a scraper to ask, and for another process of the node to tell its metrics."""
    summary: float = 10.0
    """Between entries that sum up how many requests were throttled: each costs a commit."""
    keys: float = 10.0
    """Between looks whether data keys are to be renewed."""
    tidy: float = 60.0
    """Between removals of what has expired."""
    streams: float = 60.0
    """Between looks whether what is kept of the ends of the ledger's streams was edited."""
    orders: float = 10.0
    """Between looks for commands of rotations that agents were not told of: their change was not heard of."""


USUAL = Timing()
"""What servers do."""
