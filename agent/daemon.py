"""``secrethub-agent``: the command line of the agent.

Exit codes: 0 stopped as asked, 1 failed, 2 wrong usage or settings that cannot work.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from secrethub import __version__

if TYPE_CHECKING:
    from agent.settings import Settings

_log = logging.getLogger("agent")

_EPILOG = """\
environment (stands over the file):
  SECRETHUB_CORE_URL        https://core.example.com:4443, several with commas
  SECRETHUB_CA_FILE         PEM file with the root certificate to trust
  SECRETHUB_CA_SHA256       SHA-256 of the root certificate
  SECRETHUB_ROLE_ID         AppRole role id (or SECRETHUB_ROLE_ID_FILE)
  SECRETHUB_SECRET_ID       AppRole secret id (or SECRETHUB_SECRET_ID_FILE)
  SECRETHUB_<SECTION>__<KEY>  any other setting, e.g. SECRETHUB_CACHE__TTL=10m

exit codes: 0 stopped as asked, 1 failed, 2 wrong usage or settings
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    options = _parser().parse_args(arguments)
    if options.command == "run":
        from secrethub.sensitive import protect_process

        protect_process()
    from agent.checks import capabilities, check, warnings
    from agent.configuration import load
    from secrethub.errors import Misconfigured

    try:
        settings = load(options.config, os.environ)
        problems = check(settings)
    except Misconfigured as exc:
        problems = [exc.message]
    if problems:
        for problem in problems:
            print(f"secrethub-agent: {problem}", file=sys.stderr)  # noqa: T201 - a command line
        return 2
    doubts = warnings(settings, capabilities())
    if options.command == "check":
        for doubt in doubts:
            print(f"secrethub-agent: warning: {doubt}", file=sys.stderr)  # noqa: T201
        print("secrethub-agent: the settings are usable")  # noqa: T201
        return 0
    return _run(settings, doubts)


def _run(settings: Settings, doubts: Sequence[str]) -> int:
    from agent import logs
    from secrethub.errors import Misconfigured, SecretHubError

    logs.set_up(settings.log_level)
    for doubt in doubts:
        _log.warning("a setting is doubtful", extra={"warning": doubt})
    import uvloop

    try:
        uvloop.run(_serve(settings))
    except Misconfigured as exc:
        _log.critical("the settings cannot work", extra={"error": exc.message})
        return 2
    except SecretHubError as exc:
        _log.critical("the agent cannot go on", extra={"error": str(exc), "code": exc.code})
        return 1
    except Exception as exc:  # noqa: BLE001 - the last one to hear of it
        for defect in _leaves(exc):
            ours = {"error": str(defect)} if isinstance(defect, SecretHubError) else {}
            _log.critical("a part of the agent failed", exc_info=defect, extra=ours)
        return 1
    return 0


async def _serve(settings: Settings) -> None:
    import asyncio
    import signal

    from agent.service import serve

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await serve(settings, stop)


def _leaves(exc: BaseException) -> list[BaseException]:
    if isinstance(exc, BaseExceptionGroup):
        return [leaf for inner in exc.exceptions for leaf in _leaves(inner)]
    return [exc]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="secrethub-agent",
        description="Delivers secrets from SecretHub to this host: files, reloads, a local socket.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"secrethub-agent {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, summary in (("run", "run the agent"), ("check", "say what is wrong with the settings")):
        command = commands.add_parser(name, help=summary, description=summary)
        command.add_argument(
            "--config",
            type=Path,
            metavar="FILE",
            help="settings (default: /etc/secrethub/agent.toml if there)",
        )
    return parser


if __name__ == "__main__":
    sys.exit(main())
