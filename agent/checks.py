"""Everything about the settings that can be found out without talking to anybody."""

from __future__ import annotations

import os
from pathlib import Path

from agent import trust
from agent.delivery import compile_template
from agent.enrollment import NOT_ACCEPTED, PENDING_FILE, REFUSED_FILE, lacks_secret_id
from agent.identity import IDENTITY_FILE
from agent.settings import Settings, TemplateSettings
from agent.templates import environment
from secrethub.errors import Misconfigured

_CAP_CHOWN = 1 << 0
"""capabilities(7)."""


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
    status = Path("/proc/self/status").read_text("ascii", "replace")
    held = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(int(held.split()[1], 16) & _CAP_CHOWN)


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
