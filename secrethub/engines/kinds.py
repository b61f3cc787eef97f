"""The kinds of engine that there are, from one table."""

from __future__ import annotations

from secrethub.engines.agents import AgentsEngine
from secrethub.engines.approle import AppRoleEngine
from secrethub.engines.aws import AwsEngine
from secrethub.engines.cert import CertEngine
from secrethub.engines.cubbyhole import CubbyholeEngine
from secrethub.engines.database import DatabaseEngine
from secrethub.engines.engine import Engine
from secrethub.engines.flat import FlatEngine
from secrethub.engines.kv import KvEngine, KvV1Engine
from secrethub.engines.pki import PkiEngine
from secrethub.engines.system import SystemEngine
from secrethub.engines.token import TokenEngine
from secrethub.engines.userpass import UserpassEngine


def engines() -> dict[str, Engine]:
    """Return every kind of engine."""
    kinds: list[Engine] = [
        SystemEngine(),
        KvEngine(),
        KvV1Engine(),
        FlatEngine(),
        TokenEngine(),
        AppRoleEngine(),
        UserpassEngine(),
        CertEngine(),
        PkiEngine(),
        DatabaseEngine(),
        AwsEngine(),
        AgentsEngine(),
        CubbyholeEngine(),
    ]
    return {engine.kind: engine for engine in kinds}
