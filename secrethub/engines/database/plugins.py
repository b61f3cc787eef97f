"""The kinds of databases there are."""

from __future__ import annotations

from secrethub.engines.database.postgresql import PostgresqlPlugin
from secrethub.engines.database.redis_acl import RedisPlugin
from secrethub.engines.database.target import Plugin
from secrethub.errors import InvalidRequest

PLUGINS: tuple[Plugin, ...] = (PostgresqlPlugin(), RedisPlugin())


def plugin_of(name: str) -> Plugin:
    """Return a kind of database by one of its names.

    Raises:
        InvalidRequest: there is none.
    """
    for plugin in PLUGINS:
        if name in plugin.names:
            return plugin
    raise InvalidRequest(f"plugin_name is one of {', '.join(plugin.names[0] for plugin in PLUGINS)}")
