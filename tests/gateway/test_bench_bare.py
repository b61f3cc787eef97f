"""The yardstick of the measurements: the bare app stands behind the listeners that it says."""

from __future__ import annotations

import http.client

from bench._bare import serving


def _status(address: str, method: str) -> int:
    host, port = address.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=10)
    try:
        connection.request(method, "/")
        return connection.getresponse().status
    finally:
        connection.close()


def test_one_door_is_ours_and_one_is_uvicorns() -> None:
    """Uvicorn's own parser knows no LIST; ours answers it."""
    with serving(ray=False) as doors:
        assert [_status(doors[name], "GET") for name in ("http", "uvicorn-http")] == [200, 200]
        assert _status(doors["http"], "LIST") == 200
        assert _status(doors["uvicorn-http"], "LIST") == 400
