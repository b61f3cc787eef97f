"""When a session is asked for a sign of life, reminded, or ended. Pure: instants in, a verdict out."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeAlias

from secrethub.wire.close_codes import CloseCode


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Seconds and sizes that bound a session. Defaults suit ten thousand sessions in a process."""

    hello: float = 10.0
    """From connection to ``hello``; longer, and the connection only costs memory."""
    ping_after: float = 25.0
    """Silence after which a sign of life is asked for; below usual NAT timeouts of 30 s and more."""
    silent: float = 70.0
    """Silence after which the other end counts as gone: two pings lost."""
    slow: float = 15.0
    """How long one frame may wait to be taken off the connection."""
    inbox: int = 64
    """Messages from the agent that may wait; more stay in its socket."""
    shown_every: float = 60.0
    """Seconds after which the ledger's newest checkpoint is shown again, at a random time before that."""
    watches: int = 12_000
    """Paths one agent may watch: those of a full cache and of its files."""
    watched_text: int = 2 * 2**20
    """Characters in all of these paths and their keys, so that long ones cost no more than many."""
    renew_before: timedelta = timedelta(days=7)
    """Before the end of a long certificate; short ones are due at two thirds of their life."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ask:
    """Ask for a sign of life."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Remind:
    """Say that the certificate is due."""


@dataclass(frozen=True, kw_only=True, slots=True)
class End:
    """Close with this code and reason."""

    code: CloseCode
    reason: str


Verdict: TypeAlias = Ask | Remind | End | None

ASK = Ask()
REMIND = Remind()


def renewal_due(not_before: datetime, not_after: datetime, renew_before: timedelta) -> datetime:
    """Return when a certificate should be renewed: the later of two thirds and ``renew_before`` its end."""
    return max(not_before + (not_after - not_before) * 2 / 3, not_after - renew_before)


def examine(
    limits: Limits,
    *,
    greeted: bool,
    since_began: float,
    since_heard: float,
    since_asked: float | None,
    sending_for: float | None,
    not_after: datetime,
    due: datetime | None,
    now: datetime,
) -> Verdict:
    """Say what a session needs now.

    Args:
        limits: the bounds.
        greeted: whether the agent has said hello.
        since_began: seconds since it connected.
        since_heard: seconds since anything came from the agent, or since it connected.
        since_asked: seconds since it was last asked for a sign of life, None if not since it was heard.
        sending_for: seconds something has waited to be taken by the agent, None if nothing does.
        not_after: end of the certificate.
        due: when to remind of renewal, None if done.
        now: the wall clock.
    """
    if now >= not_after:
        return End(code=CloseCode.CERTIFICATE_EXPIRED, reason="certificate expired")
    if sending_for is not None and sending_for > limits.slow:
        return End(code=CloseCode.TOO_SLOW, reason="messages are not taken")
    if not greeted:
        if since_began > limits.hello:
            return End(code=CloseCode.SILENT, reason="no hello")
        return None
    if since_heard > limits.silent:
        return End(code=CloseCode.SILENT, reason="no sign of life")
    if due is not None and now >= due:
        return REMIND
    if since_heard > limits.ping_after and (since_asked is None or since_asked > limits.ping_after):
        return ASK
    return None
