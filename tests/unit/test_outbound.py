"""Where the server may be led by what somebody configures through the API."""

from __future__ import annotations

import ipaddress

import msgspec
import pytest

from secrethub.engines.outbound import Refused, allowed_addresses
from secrethub.node import NodeSettings

SETTINGS = NodeSettings(
    node="n1",
    run_dir="/run",
    state_dir="/var",
    database_url="postgresql://hub@127.0.0.1:5433/hub",
    cluster_key_file="/key",
    http=None,
    tls=None,
    agents=None,
    serve=None,
    metrics=None,
    agent_urls=(),
    outbound_networks=("127.0.0.0/8", "::1/128"),
)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::ffff:127.0.0.1"])
async def test_the_own_database(host: str) -> None:
    """Where the settings allow loopback Core's own database is refused all the same, and only it."""
    with pytest.raises(Refused, match="database of SecretHub itself"):
        await allowed_addresses(SETTINGS, host, 5433)
    assert ipaddress.ip_address("127.0.0.1") in await allowed_addresses(SETTINGS, host, 5434)


async def test_the_usual_port_of_the_database() -> None:
    """A URL without a port means PostgreSQL's own."""
    settings = msgspec.structs.replace(SETTINGS, database_url="postgresql://hub@127.0.0.1/hub")
    with pytest.raises(Refused, match="database"):
        await allowed_addresses(settings, "127.0.0.1", 5432)
