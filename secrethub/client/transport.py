"""Between httpx2 and us: limits, timeouts, and the one place where its errors become ours."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2

from secrethub.client.errors import NotReached, NotTrusted
from secrethub.client.messages import Request
from secrethub.client.settings import ClientSettings, Endpoint


def timeouts(settings: ClientSettings) -> httpx2.Timeout:
    """How long each phase of a request may take."""
    return httpx2.Timeout(settings.timeout, connect=settings.connect_timeout)


def limits() -> httpx2.Limits:
    """How many connections a client keeps."""
    return httpx2.Limits(max_connections=64, max_keepalive_connections=16, keepalive_expiry=30.0)


@contextmanager
def as_client_error(endpoint: Endpoint, request: Request) -> Iterator[None]:
    """Turn what httpx2 raises into :mod:`secrethub.client.errors`."""
    may_have_changed = not request.safe
    try:
        yield
    except httpx2.ConnectError as exc:
        if _certificate(exc):
            raise NotTrusted(f"{endpoint.url}: {_certificate(exc)}") from exc
        raise NotReached(f"{endpoint.url}: {_reason(exc)}") from exc
    except (httpx2.ConnectTimeout, httpx2.PoolTimeout) as exc:
        raise NotReached(f"{endpoint.url}: no connection in time") from exc
    except httpx2.TimeoutException as exc:
        raise NotReached(f"{endpoint.url}: no answer in time", may_have_changed) from exc
    except httpx2.TransportError as exc:
        hint = "; does it speak https://?" if _cut_off(exc) and endpoint.scheme == "http" else ""
        raise NotReached(f"{endpoint.url}: {_reason(exc)}{hint}", may_have_changed) from exc


def _certificate(exc: BaseException) -> str:
    cause: BaseException | None = exc
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"certificate not trusted: {cause.verify_message}"
        cause = cause.__cause__ or cause.__context__
    return ""


def _cut_off(exc: httpx2.TransportError) -> bool:
    """Tell whether the server ended the connection without a word, as one does that expects TLS."""
    return isinstance(exc, httpx2.ReadError | httpx2.RemoteProtocolError)


def _reason(exc: BaseException) -> str:
    cause: BaseException | None = exc
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            if cause.reason == "WRONG_VERSION_NUMBER":
                return "it does not speak TLS; does it speak http://?"
            return f"TLS failed: {cause.reason or 'unknown reason'}"
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return str(exc).rstrip(".") or "connection lost"
