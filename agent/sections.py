"""The sections of ``agent.toml`` that hand secrets over: the socket, its grants, templates, reloads."""

from __future__ import annotations

import grp
import pwd
import re
import signal
from collections.abc import Callable

from agent.grants import OVERFLOW_ID, PREFIX, check_pattern
from agent.settings import (
    CommandReload,
    CommandSettings,
    GrantSettings,
    HttpReload,
    ReloadSettings,
    SignalReload,
    SocketSettings,
    TemplateSettings,
)
from agent.table import Table
from agent.urls import problem as url_problem
from secrethub.errors import InvalidRequest, Misconfigured
from secrethub.ids import is_application
from secrethub.wire.messages import MAX_APPLICATIONS

_UNIT = re.compile(r"[A-Za-z0-9:_.\\@-]{1,200}\.(service|scope|socket|mount|swap)")
_COMMAND = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_SIGNALS = ("HUP", "USR1", "USR2", "INT", "QUIT", "TERM", "WINCH", "CONT", "ALRM")


def read_socket(table: Table) -> SocketSettings | None:
    """Read ``[socket]``; None when no path is set.

    Raises:
        Misconfigured: names the setting that cannot work.
    """
    path = table.path("path")
    if path is None:
        for key in table.left():
            raise table.wrong(key, "has no effect without socket.path")
        return None
    if len(str(path)) > 100:
        raise table.wrong("path", "is too long for a Unix socket (at most 100 characters)")
    uid, gid = _owner(table)
    settings = SocketSettings(
        path=path,
        mode=table.mode("mode", default=0o660),
        uid=uid,
        gid=gid,
        allow=tuple(_grant(grant) for grant in table.tables("allow")),
    )
    if len({grant.application for grant in settings.allow} - {None}) > MAX_APPLICATIONS:
        raise table.wrong("allow", f"names more than {MAX_APPLICATIONS} applications")
    table.finish()
    return settings


def read_templates(tables: list[Table]) -> tuple[TemplateSettings, ...]:
    """Read every ``[[template]]``.

    Raises:
        Misconfigured: names the setting that cannot work.
    """
    templates = []
    taken = set()
    for table in tables:
        template = _template(table)
        if template.destination in taken:
            raise table.wrong("destination", "is written by another template already")
        taken.add(template.destination)
        templates.append(template)
    return tuple(templates)


def read_commands(tables: list[Table]) -> tuple[CommandSettings, ...]:
    """Read every ``[[command]]``.

    Raises:
        Misconfigured: names the setting that cannot work.
    """
    commands: dict[str, CommandSettings] = {}
    for table in tables:
        name = table.needed("name")
        if _COMMAND.fullmatch(name) is None:
            raise table.wrong("name", "must be letters, digits, '.', '_' and '-' (at most 128)")
        if name in commands:
            raise table.wrong("name", "is another command's already")
        if not isinstance(table.peek("run"), list):
            raise table.wrong("run", 'must be a list of arguments, like ["/usr/local/sbin/set-password"]')
        argv = table.texts("run")
        if not argv or any("\0" in argument for argument in argv) or not argv[0].startswith("/"):
            raise table.wrong("run", "begins with the absolute path of a program")
        commands[name] = CommandSettings(name=name, argv=argv, timeout=_timeout(table, default=60))
        table.finish()
    return tuple(commands.values())


def _grant(table: Table) -> GrantSettings:
    uid = _number(table, "user", lambda name: pwd.getpwnam(name).pw_uid)
    gid = _number(table, "group", lambda name: grp.getgrnam(name).gr_gid)
    unit = table.text("unit")
    if unit is not None and _UNIT.fullmatch(unit) is None:
        raise table.wrong("unit", "must be a systemd unit with its suffix, like app.service")
    executable = table.path("executable")
    if uid is None and gid is None and unit is None:
        raise table.wrong("user", "is missing: an entry needs user, group or unit (executable only narrows)")
    if OVERFLOW_ID in {uid, gid}:
        raise table.wrong("user", f"{OVERFLOW_ID} stands for everybody the kernel cannot name")
    application = table.text("application")
    if application is not None and not is_application(application):
        raise table.wrong("application", "must be letters, digits, '_', '.' and '-' (at most 64)")
    if not table.has("paths") and not table.has("credentials"):
        raise table.wrong("paths", "is missing (or credentials)")
    paths, credentials = _patterns(table, "paths", PREFIX), _patterns(table, "credentials", "")
    table.finish()
    return GrantSettings(
        uid=uid,
        gid=gid,
        unit=unit,
        executable=str(executable) if executable else None,
        application=application,
        paths=paths,
        credentials=credentials,
    )


def _patterns(table: Table, key: str, prefix: str) -> tuple[str, ...]:
    if not table.has(key):
        return ()
    patterns = table.texts(key)
    if not patterns:
        raise table.wrong(key, "is empty")
    for pattern in patterns:
        try:
            check_pattern(pattern, prefix)
        except InvalidRequest as exc:
            raise table.wrong(key, str(exc)) from exc
    return patterns


def _template(table: Table) -> TemplateSettings:
    destination = table.path("destination")
    if destination is None or not destination.name:
        raise table.wrong("destination", "is missing")
    uid, gid = _owner(table)
    template = TemplateSettings(
        destination=destination,
        source=table.path("source"),
        content=table.text("content"),
        uid=uid,
        gid=gid,
        mode=table.mode("mode", default=0o400),
        backup=table.flag("backup", default=False),
        reload=_reload(table.table("reload")) if table.has("reload") else None,
    )
    table.finish()
    if (template.source is None) == (template.content is None):
        raise table.wrong("source", "or content must be set, and not both")
    return template


def _reload(table: Table) -> ReloadSettings:
    ways = [key for key in ("signal", "command", "http") if table.has(key)]
    if len(ways) != 1:
        raise Misconfigured(f"{table.name} needs exactly one of signal, command and http")
    readers: dict[str, Callable[[Table], ReloadSettings]] = {
        "signal": _signal,
        "command": _command,
        "http": _http,
    }
    reload = readers[ways[0]](table)
    table.finish()
    return reload


def _signal(table: Table) -> SignalReload:
    name = table.needed("signal").upper().removeprefix("SIG")
    if name not in _SIGNALS:
        raise table.wrong("signal", f"must be one of {', '.join(_SIGNALS)}")
    pid_file, unit = table.path("pid_file"), table.text("unit")
    if (pid_file is None) == (unit is None):
        raise table.wrong("pid_file", "or unit must be set, and not both")
    if unit is not None and _UNIT.fullmatch(unit) is None:
        raise table.wrong("unit", "must be a systemd unit with its suffix, like app.service")
    return SignalReload(signal=int(signal.Signals[f"SIG{name}"]), pid_file=pid_file, unit=unit)


def _command(table: Table) -> CommandReload:
    if not isinstance(table.peek("command"), list):
        raise table.wrong("command", 'must be a list of arguments, like ["systemctl", "reload", "app"]')
    argv = table.texts("command")
    if not argv or any("\0" in argument for argument in argv):
        raise table.wrong("command", "needs at least one argument")
    return CommandReload(argv=argv, timeout=_timeout(table))


def _http(table: Table) -> HttpReload:
    url = table.needed("http")
    wrong = url_problem(url, bare=False)
    if wrong is not None:
        raise table.wrong("http", wrong)
    return HttpReload(url=url, timeout=_timeout(table))


def _timeout(table: Table, default: int = 30) -> int:
    timeout = table.seconds("timeout", default=default)
    if not 1 <= timeout <= 3600:
        raise table.wrong("timeout", "must be between 1s and 1h")
    return timeout


def _owner(table: Table) -> tuple[int | None, int | None]:
    return (
        _number(table, "owner", lambda name: pwd.getpwnam(name).pw_uid),
        _number(table, "group", lambda name: grp.getgrnam(name).gr_gid),
    )


def _number(table: Table, key: str, look_up: Callable[[str], int]) -> int | None:
    account = table.account(key)
    if not isinstance(account, str):
        return account
    try:
        return look_up(account)
    except KeyError as exc:
        raise table.wrong(key, f"{account!r} does not exist on this host") from exc
