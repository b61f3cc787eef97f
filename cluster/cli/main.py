"""The ``secrethub`` command: the table of commands and the one place where errors become exit codes.

Exit codes: 0 done, 1 failed, 2 wrong usage. ``status`` has its own: 2 sealed, 3 not initialised.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from cluster.cli.lazy import LazyGroup
from secrethub import __version__

_COMMANDS = {
    "dev": ("cluster.cli.start:dev", "Start a complete SecretHub for development on this machine."),
    "server": ("cluster.cli.start:server", "Start a node of a cluster."),
    "status": ("cluster.cli.status:status", "Tell whether the cluster is initialised and unsealed."),
    "operator": ("cluster.cli.operators:operator", "Initialise, unseal, seal, and what takes shares."),
    "login": ("cluster.cli.login:login", "Log in and store the token for later commands."),
    "kv": ("cluster.cli.kv:kv", "Read and write static secrets."),
    "policy": ("cluster.cli.policy:policy", "Read and write policies."),
    "auth": ("cluster.cli.mounts:auth", "List, enable, tune, move and disable auth methods."),
    "mount": ("cluster.cli.mounts:mount", "List, enable, tune, move and disable secrets engines."),
    "rotation": ("cluster.cli.rotation:rotation", "Replace secrets again and again."),
    "engine": ("cluster.cli.engine:engine", "Users at databases, for as long as a lease."),
    "quota": ("cluster.cli.quotas:quota", "Limit requests, and leases."),
    "approle": ("cluster.cli.approle:approle", "Roles, RoleIDs and SecretIDs for machines."),
    "cert": ("cluster.cli.certs:cert", "Whose client certificates log in."),
    "user": ("cluster.cli.users:user", "People who log in with a name and a password."),
    "token": ("cluster.cli.tokens:token", "Create, look up, renew and revoke tokens."),
    "lease": ("cluster.cli.leases:lease", "Find, renew and revoke leases."),
    "wrap": ("cluster.cli.wrapping:wrap", "Keep a secret for whoever holds a one-time token."),
    "unwrap": ("cluster.cli.wrapping:unwrap", "Open a wrapped answer, once."),
    "pki": ("cluster.cli.pki:pki", "Issue certificates."),
    "agent": ("cluster.cli.agent:agent", "Run an agent on this host, look after enrolled ones."),
    "audit": ("cluster.cli.audit:audit", "Verify the audit ledger, and search it."),
}

_ELSEWHERE = {
    "secrets": "mount",
    "read": "kv get",
    "write": "kv put",
    "list": "kv list",
    "delete": "kv delete",
    "patch": "kv patch",
    "init": "operator init",
    "seal": "operator seal",
    "unseal": "operator unseal",
}
"""What Vault's and OpenBao's commands, old ones too, are called here."""


@click.command(
    cls=LazyGroup,
    lazy=_COMMANDS,
    elsewhere=_ELSEWHERE,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Where the server is, who asks and whom to trust also come from SECRETHUB_ADDR, SECRETHUB_TOKEN, "
    "SECRETHUB_CACERT and SECRETHUB_CA_SHA256.",
)
@click.option("--address", metavar="URL", help="The server [default: http://127.0.0.1:4000].")
@click.option("--ca-file", metavar="FILE", help="PEM file with the root certificate to trust.")
@click.option("--ca-sha256", metavar="HEX", help="Fingerprint of the certificate to trust.")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["table", "json", "yaml"]),
    envvar="SECRETHUB_FORMAT",
    help="How to print answers (SECRETHUB_FORMAT) [default: table].",
)
@click.option(
    "--wrap-ttl",
    metavar="DURATION",
    envvar="SECRETHUB_WRAP_TTL",
    help="Answer with a one-time token that opens the answer (SECRETHUB_WRAP_TTL).",
)
@click.version_option(__version__, prog_name="secrethub")
@click.pass_context
def cli(ctx: click.Context, /, **defaults: str | None) -> None:
    """SecretHub gives machines their secrets."""
    ctx.obj = defaults


def run(argv: Sequence[str]) -> int:
    """Run one command line and return its exit code."""
    _replace_closed()
    try:
        code = cli.main(args=list(argv), prog_name="secrethub", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as exc:
        (_explained(exc, argv) if isinstance(exc, click.NoSuchOption) else exc).show()
        return exc.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("Aborted.", err=True)
        return 1
    except BrokenPipeError:
        _write_no_more()  # whoever read our output has enough
        return 1
    except OSError as exc:
        if not _while_writing(exc):
            raise
        _write_no_more()
        click.echo(f"Error: standard output: {exc.strerror}", err=True)
        return 1
    return code if isinstance(code, int) else 0


def _explained(exc: click.NoSuchOption, argv: Sequence[str]) -> click.UsageError:
    """Say how an option is written that came with one dash, as Go's programs have it."""
    known = set() if exc.ctx is None else {n for o in exc.ctx.command.get_params(exc.ctx) for n in o.opts}
    for argument in argv:
        name = f"-{argument.partition('=')[0]}"
        if argument.startswith(exc.option_name) and name in known:
            told = f"{exc.format_message()} Long options have two dashes: {name}."
            return click.UsageError(told, exc.ctx)
    return exc


def _replace_closed() -> None:
    """Open standard input and output where they were closed, such that reading and writing fail."""
    if sys.stdin is None:
        sys.stdin = os.fdopen(os.open(os.devnull, os.O_WRONLY), encoding="utf-8")
    if sys.stdout is None:
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_RDONLY), "w", encoding="utf-8")


def _while_writing(exc: OSError) -> bool:
    """Tell whether an answer could not be written: a full disk may also be met by a server, elsewhere."""
    place = exc.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    return place is not None and place.tb_frame.f_code in {click.echo.__code__, run.__code__}


def _write_no_more() -> None:
    """Let what is left in the buffer go nowhere: the interpreter must not fail again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main() -> None:
    """Entry point of ``secrethub``."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
