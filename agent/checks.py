"""Everything about the settings that can be found out without talking to anybody.

A *problem* keeps the agent from starting. A *warning* is about a part that will not work for somebody.
"""

from __future__ import annotations

import os
import pwd
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from agent import trust
from agent.delivery import compile_template
from agent.enrollment import NOT_ACCEPTED, PENDING_FILE, REFUSED_FILE, lacks_secret_id
from agent.identity import IDENTITY_FILE
from agent.settings import CommandReload, GrantSettings, Settings, SocketSettings, TemplateSettings
from agent.templates import environment
from secrethub.errors import Misconfigured

if TYPE_CHECKING:
    import jinja2

_CAP_CHOWN = 0
CAP_SYS_PTRACE = 19
"""Numbers of capabilities(7)."""


def capabilities() -> int:
    """Return the effective capabilities of this process, a bit each."""
    status = Path("/proc/self/status").read_text("ascii", "replace")
    held = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    return int(held.split()[1], 16)


def check(settings: Settings) -> list[str]:
    """Return what is wrong, one sentence each; nothing when the agent can start."""
    problems = []
    try:
        trust.check_files(settings.core)
    except Misconfigured as exc:
        problems.append(exc.message)
    shared = environment()
    for template in settings.templates:
        try:
            compile_template(template, shared)
        except Misconfigured as exc:
            problems.append(exc.message)
        if not _may_give_away(template):
            problems.append(f"template {template.destination}: this process cannot give files to that owner")
    return problems + _credentials(settings)


def _may_give_away(template: TemplateSettings) -> bool:
    """Tell whether this process may make files of the template's owner and group."""
    own_groups = {None, os.getegid(), *os.getgroups()}
    if template.uid in {None, os.geteuid()} and template.gid in own_groups:
        return True
    return bool(capabilities() >> _CAP_CHOWN & 1)


def warnings(settings: Settings, held: int) -> list[str]:
    """Return what will not work for some of those who are allowed, one sentence each.

    Args:
        settings: the agent's.
        held: what its process may do: :func:`capabilities`.
    """
    found = []
    file = settings.auth.secret_id_file
    if file is not None and _open_to_everybody(file):
        found.append(f"auth.secret_id_file {file} is open to everybody; run: chmod 600 {file}")
    shared = environment()
    for template in settings.templates:
        about = f"template {template.destination}"
        found += [f"{about}: {doubt}" for doubt in _doubts(template, shared)]
    if settings.socket is None:
        return found
    others = [grant for grant in settings.socket.allow if grant.uid != os.geteuid()]
    if others and not held >> CAP_SYS_PTRACE & 1:
        found.append(
            "socket.allow: without the capability CAP_SYS_PTRACE this process cannot examine other users' "
            "processes, and refuses them (AmbientCapabilities=CAP_SYS_PTRACE in its unit)"
        )
    for number, grant in enumerate(settings.socket.allow, 1):
        if not _may_connect(settings.socket, grant):
            found.append(
                f"socket.allow[{number}]: the socket's mode {settings.socket.mode:04o}, owner and group keep "
                "everybody of this entry out; set socket.group to a group of theirs"
            )
        for other, wider in enumerate(settings.socket.allow, 1):
            if None not in {grant.application, wider.application} and _is_of_two(grant, wider):
                found.append(
                    f"socket.allow[{number}]: everybody of this entry is of [{other}] as well, which names "
                    "another application, and is refused"
                )
    return found


def _doubts(template: TemplateSettings, shared: jinja2.Environment) -> Iterator[str]:
    """Yield why a template will not get into its place, as things are now."""
    for name in sorted(compile_template(template, shared).unknown):
        yield f"there is no {name} in templates; they have secret(…) and credentials(…)"
    if template.destination.is_dir():
        yield "that is a folder"
    elif not template.destination.parent.is_dir():
        yield f"there is no folder {template.destination.parent}"
    if isinstance(template.reload, CommandReload) and shutil.which(template.reload.argv[0]) is None:
        yield f"reload.command: there is no program {template.reload.argv[0]}"


def _open_to_everybody(file: Path) -> bool:
    try:
        return bool(file.stat().st_mode & 0o007)
    except OSError:  # usually removed after its use
        return False


def _is_of_two(grant: GrantSettings, wider: GrantSettings) -> bool:
    """Tell whether to each process of an entry another one applies as well, of another application."""
    conditions = ("uid", "gid", "unit", "executable")
    return grant.application != wider.application and all(
        getattr(wider, name) in {None, getattr(grant, name)} for name in conditions
    )


def _may_connect(socket: SocketSettings, grant: GrantSettings) -> bool:
    """Tell whether a process of an entry may write to the socket, as far as that is known."""
    owner = os.geteuid() if socket.uid is None else socket.uid
    group = os.getegid() if socket.gid is None else socket.gid
    if socket.mode & stat.S_IWOTH or grant.uid == 0 or (grant.uid is None and grant.gid is None):
        return True
    user, groups = grant.uid, {grant.gid}
    if user is None:
        user = owner if grant.gid in _groups(owner) else None
    else:
        groups |= _groups(user)
    return bool(
        (user == owner and socket.mode & stat.S_IWUSR) or (group in groups and socket.mode & stat.S_IWGRP)
    )


def _groups(uid: int) -> set[int | None]:
    try:
        account = pwd.getpwuid(uid)
    except KeyError:
        return set()
    return set(os.getgrouplist(account.pw_name, account.pw_gid))


def _credentials(settings: Settings) -> list[str]:
    """Return what is missing for enrolment, unless it is behind us or under way."""
    auth = settings.auth
    if any((settings.state_dir / name).exists() for name in (IDENTITY_FILE, PENDING_FILE)):
        return []
    if lacks_secret_id(auth) and (settings.state_dir / REFUSED_FILE).exists():
        return [NOT_ACCEPTED]
    problems = []
    if auth.role_id is None:
        problems.append("auth.role_id is missing (or set SECRETHUB_ROLE_ID)")
    if auth.secret_id is None and auth.secret_id_file is None:
        problems.append("auth.secret_id_file is missing (or set SECRETHUB_SECRET_ID)")
    elif auth.secret_id is None and auth.secret_id_file is not None and not auth.secret_id_file.is_file():
        problems.append(f"auth.secret_id_file {auth.secret_id_file} does not exist")
    return problems
