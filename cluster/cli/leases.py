"""``secrethub lease``: what is leased out, and its end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from cluster.cli.output import Table, fields, names
from cluster.cli.session import Session, with_session

_PAGE = 500
_LEASES = "sys/leases"


@click.group()
def lease() -> None:
    """Find, renew and revoke leases, and see to those that could not be ended."""


@lease.command()
@click.argument("lease_id")
@with_session
def lookup(session: Session, lease_id: str) -> None:
    """Show a lease, but nothing of what it stands for."""
    with session.client() as client:
        found = client.write(f"{_LEASES}/lookup", {"lease_id": lease_id}).data
    session.show(found)


@lease.command()
@click.argument("lease_id")
@click.option("--increment", metavar="DURATION", help="From now on [default: as it was made for].")
@with_session
def renew(session: Session, lease_id: str, increment: str | None) -> None:
    """Let a lease last longer, within its maximum and its token's life."""
    body = {"lease_id": lease_id} | ({"increment": increment} if increment else {})
    with session.client() as client:
        reply = client.write(f"{_LEASES}/renew", body)
    session.warn(reply.warnings)
    found = {
        "lease_id": reply.lease_id,
        "lease_duration": reply.lease_duration,
        "renewable": reply.renewable,
    }
    session.show(found)


@lease.command()
@click.argument("lease_id")
@click.option("--prefix", is_flag=True, help="All leases below LEASE_ID, or that one.")
@click.option("--wait", is_flag=True, help="Until they are gone at their targets.")
@click.option("--force", is_flag=True, help="With --prefix: forget those that cannot be ended.")
@with_session
def revoke(session: Session, lease_id: str, prefix: bool, wait: bool, force: bool) -> None:
    """End the lease LEASE_ID; with --prefix, all leases below it (below auth/: all tokens)."""
    if force and (not prefix or wait):
        raise click.UsageError("--force goes with --prefix, and without --wait")
    below = lease_id.strip("/")
    with session.client() as client:
        if force:
            reply = client.write(f"{_LEASES}/revoke-force/{below}")
        elif prefix:
            reply = client.write(f"{_LEASES}/revoke-prefix/{below}", {"sync": wait})
        else:
            reply = client.write(f"{_LEASES}/revoke", {"lease_id": lease_id, "sync": wait})
    session.warn(reply.warnings)
    number = reply.data["leases"] if prefix else 1
    tokens = prefix and f"{below}/".startswith("auth/")
    kind = "token" if tokens else "lease"
    if not number:
        session.say(f"Nothing was revoked: there is no {kind} {below}, and none below it.")
        return
    done = f"Revoked {number} {kind}{'s' * (number > 1)}" if prefix else "Revoked"
    session.say(f"{done}." if wait or force or tokens else f"{done}; gone at the target in a moment.")


@lease.command("list")
@click.argument("prefix", default="")
@with_session
def list_(session: Session, prefix: str) -> None:
    """List what is directly below PREFIX; what ends with / has leases below it."""
    with session.client() as client:
        found = client.list(f"{_LEASES}/lookup/{prefix.strip('/')}".rstrip("/"))
    session.show(list(found), names(found))


@lease.command()
@click.option("--prefix", help="Of their ids.")
@click.option("--role", help="Of the engine.")
@click.option("--owner", help="Beginning of the digest of a token, or an agent's id, as shown here.")
@click.option("--engine", help="Type of the mount.")
@click.option("--expiring-before", metavar="WHEN", help="RFC 3339, or a duration from now on.")
@click.option("--most", type=click.IntRange(1), default=1000, help="How many at most [default: 1000].")
@with_session
def find(session: Session, /, most: int, **wanted: str | None) -> None:
    """Find leases by what they are, in the order of their ids."""
    _show(session, _found(session, most, {name: text for name, text in wanted.items() if text}))


@lease.command()
@click.option("--retry", is_flag=True, help="Try again to end them.")
@click.argument("prefix", default="")
@with_session
def dead(session: Session, retry: bool, prefix: str) -> None:
    """Show leases below PREFIX whose end was given up, and why.

    Once their target is in order again, use --retry; if it will never be, `lease revoke --prefix --force`.
    """
    if not retry:
        _show(session, _found(session, 1000, {"type": "irrevocable", "prefix": prefix}))
        return
    with session.client() as client:
        found = client.write(f"{_LEASES}/retry", {"prefix": prefix}).data
    session.show(found)


@lease.command()
@click.option("--dead", is_flag=True, help="Those whose end was given up.")
@with_session
def count(session: Session, dead: bool) -> None:
    """Count leases by mount."""
    with session.client() as client:
        found = client.read(f"{_LEASES}/count", type="irrevocable" if dead else None).data
    session.show(found, fields(found["counts"], "Mount", "Leases"))


@lease.command()
@click.option("--most", type=click.IntRange(1, 1000), default=20, help="How many [default: 20].")
@with_session
def top(session: Session, most: int) -> None:
    """Show who has the most leases of which role."""
    with session.client() as client:
        found = client.read(f"{_LEASES}/top", limit=most).data["makers"]
    rows = tuple(
        (str(one["leases"]), one["mount"], one["role"], one["owner_name"], one["owner"][:16]) for one in found
    )
    session.show(found, Table(columns=("Leases", "Mount", "Role", "Whose", "Owner"), rows=rows))


def _found(session: Session, most: int, wanted: Mapping[str, str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    after: str | None = ""
    with session.client() as client:
        while after is not None and len(found) < most:
            limit = min(_PAGE, most - len(found))
            page = client.read(_LEASES, **wanted, after=after or None, limit=limit).data
            found += page["leases"]
            after = page["next"]
    if after is not None:
        session.note(f"There may be more than these {len(found)}.")
    return found


def _show(session: Session, found: list[dict[str, Any]]) -> None:
    rows = tuple(
        (one["lease_id"], one["state"], one["expire_time"], one["owner_name"], one["error"] or "-")
        for one in found
    )
    session.show(found, Table(columns=("Lease", "State", "Ends", "Whose", "Error"), rows=rows))
