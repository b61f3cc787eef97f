"""``secrethub pki``: certificates."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from cluster.cli.drafts import draft, keep
from cluster.cli.output import fields
from cluster.cli.session import Session, with_session

_PEM = (
    ("certificate", "cert.pem", 0o644),
    ("ca_chain", "ca-chain.pem", 0o644),
    ("private_key", "key.pem", 0o600),
)


@click.group()
def pki() -> None:
    """Issue certificates."""


@pki.command()
@click.argument("common_name")
@click.option("--alt-name", "alt_names", multiple=True, metavar="NAME", help="A further DNS name.")
@click.option("--ip", "ip_sans", multiple=True, metavar="ADDRESS", help="An IP address.")
@click.option("--ttl", metavar="DURATION", help="How long it is valid, e.g. 720h.")
@click.option("--mount", default="pki", show_default=True, metavar="PATH", help="Of the PKI.")
@click.option("--role", metavar="NAME", help="The PKI role that says what is allowed.")
@click.option(
    "--out-dir", metavar="DIR", type=Path, help="Write cert.pem, key.pem (0600) and ca-chain.pem there."
)
@with_session
def issue(
    session: Session,
    common_name: str,
    alt_names: tuple[str, ...],
    ip_sans: tuple[str, ...],
    out_dir: Path | None,
    ttl: str | None,
    mount: str,
    role: str | None,
) -> None:
    """Issue a certificate with a new key."""
    body: dict[str, Any] = {"common_name": common_name}
    if ttl:
        body["ttl"] = ttl
    if alt_names:
        body["alt_names"] = list(alt_names)
    if ip_sans:
        body["ip_sans"] = list(ip_sans)
    if out_dir is not None and not out_dir.is_dir():
        raise click.ClickException(
            f"{out_dir} is no folder; make it first, for the key is given out only once"
        )
    with ExitStack() as stack:
        places = {
            name: stack.enter_context(draft(out_dir / file, mode)) for name, file, mode in _PEM if out_dir
        }
        with session.client() as client:
            reply = client.write("/".join([mount.strip("/"), "issue", *([role] if role else [])]), body)
        session.warn(reply.warnings)
        made = dict(reply.data)
        for name, place in places.items():
            keep(place, _pem(made.pop(name, "")))
    if out_dir is None:
        if session.format != "table":
            session.show(made)
            return
        pems = [_pem(made.pop(name, "")) for name, _, _ in _PEM]
        made.pop("issuing_ca", None)
        session.show(made)
        click.echo(b"\n" + b"".join(pems), nl=False)
        return
    # It is the first certificate of ca-chain.pem, and a table would show it as one endless line.
    shown = {name: value for name, value in made.items() if name != "issuing_ca"}
    session.show(made, fields({"Written to": str(out_dir), **shown}))


def _pem(value: Any) -> bytes:
    parts = [str(part).strip() for part in value] if isinstance(value, list) else [str(value).strip()]
    return "\n".join(parts).encode() + b"\n"
