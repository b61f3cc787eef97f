"""``secrethub dev`` and ``secrethub server``: the only commands that need the server installed."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

_PORT = click.IntRange(0, 65535)
_OURS = ("secrethub", "cluster", "serve", "actors")


def _checked_networks(
    _context: click.Context, _option: click.Parameter, given: tuple[str, ...]
) -> tuple[str, ...]:
    for text in given:
        try:
            ipaddress.ip_network(text)
        except ValueError as exc:
            raise click.BadParameter(str(exc)) from exc
    return given


@click.command()
@click.option(
    "--data-dir", metavar="DIR", type=Path, help="Keep data there; without it, data ends with the process."
)
@click.option("--uninitialised", is_flag=True, help="Leave init and unseal to you.")
@click.option("--single-process", is_flag=True, help="Everything in one process, without Ray.")
@click.option(
    "--allow-network",
    "allowed_networks",
    multiple=True,
    metavar="CIDR",
    callback=_checked_networks,
    help="May be connected to for others, though it is loopback or link-local; without TLS too.",
)
@click.option("--port", type=_PORT, default=4000, show_default=True, help="HTTP on loopback.")
@click.option("--tls-port", type=_PORT, default=4443, show_default=True, help="HTTPS.")
@click.option("--agent-port", type=_PORT, default=4665, show_default=True, help="Agents (mTLS).")
@click.option("--serve-port", type=_PORT, default=8000, show_default=True, help="Ray Serve's ingress.")
@click.option("--metrics-port", type=_PORT, default=9090, show_default=True, help="Prometheus metrics.")
def dev(
    data_dir: Path | None,
    uninitialised: bool,
    single_process: bool,
    allowed_networks: tuple[str, ...],
    port: int,
    tls_port: int,
    agent_port: int,
    serve_port: int,
    metrics_port: int,
) -> None:
    """Start a complete SecretHub for development on this machine.

    Brings its own PostgreSQL and Ray, initialises and unseals, writes DIR/dev.json and prints a ready
    line. Listens on loopback only. Ctrl-C stops everything it started. Port 0 picks a free one.
    """
    with _server_parts():
        from cluster.dev import DevOptions, run_dev
    options = DevOptions(
        data_dir=data_dir,
        uninitialised=uninitialised,
        single_process=single_process,
        allowed_networks=allowed_networks,
        port=port,
        tls_port=tls_port,
        agent_port=agent_port,
        serve_port=serve_port,
        metrics_port=metrics_port,
    )
    with _failures():
        raise click.exceptions.Exit(run_dev(options))


@click.command()
@click.option("--config", required=True, metavar="FILE", type=Path, help="secrethub.toml of this node.")
def server(config: Path) -> None:
    """Start a node of a cluster, as its settings say: head or worker."""
    with _server_parts():
        from cluster.start import run_server
    with _failures():
        raise click.exceptions.Exit(run_server(config))


@contextmanager
def _server_parts() -> Iterator[None]:
    """Say what to install when the base installation is asked to be a server."""
    try:
        yield
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.partition(".")[0] in _OURS:
            raise
        raise click.ClickException(
            f"this installation has no server ({exc.name} is missing); "
            "in SecretHub's source folder run: pip install '.[server]'"
        ) from exc


@contextmanager
def _failures() -> Iterator[None]:
    """Settings that cannot work, and what is not there, end the command with one line."""
    from secrethub.errors import SecretHubError

    try:
        yield
    except SecretHubError as exc:
        raise click.ClickException(str(exc)) from exc
