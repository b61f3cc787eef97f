"""How the agent gets its certificate: AppRole login, nonce, key and request, certificate.

Each step is durable before the next begins, so an agent killed anywhere goes on where it was:

1. the key and, once logged in, the token are in ``pending.json`` (a SecretID may be good for one
   login only), and before that the SecretID itself if it came wrapped, for it can be opened only once;
2. a certificate that was issued but never received is asked for again with the same key, which is
   what proves to Core that the name is this agent's;
3. ``identity.pem`` ends enrolment; only then the SecretID's file is removed, and ``pending.json``
   last.

An identity that Core does not accept any more is laid aside (:func:`lay_aside`): the next start
enrols again, with the same key, if a SecretID is there.
"""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

import msgspec

from agent import identity, trust
from agent.backoff import Backoff
from agent.core_api import CoreApi
from agent.identity import Identity
from agent.settings import AuthSettings, Settings
from agent.state import StateDirectory
from secrethub import __version__
from secrethub.clock import Clock
from secrethub.errors import (
    InvalidRequest,
    Misconfigured,
    NotInitialised,
    PermissionDenied,
    Sealed,
    TooManyRequests,
    Unavailable,
)
from secrethub.pki import keys
from secrethub.pki.csr import make_request
from secrethub.sensitive import Sensitive

PENDING_FILE = "pending.json"
REFUSED_FILE = "refused.pem"
NOT_ACCEPTED = (
    "Core does not accept this agent's identity any more (it was revoked, or enrolled anew elsewhere): "
    "have the agent approved (secrethub agent approve) and give it a new SecretID"
)

_log = logging.getLogger(__name__)
_PASSING = (Unavailable, Sealed, NotInitialised, TooManyRequests)


class _Pending(msgspec.Struct, frozen=True):
    """An enrolment under way."""

    key: str
    token: str | None = None
    secret_id: str | None = None

    def __repr__(self) -> str:
        return "_Pending(…)"


async def ensure_identity(settings: Settings, state: StateDirectory, clock: Clock) -> Identity:
    """Return the agent's identity, enrolling first if it has none that is still valid.

    Waits for as long as Core cannot be reached, is sealed or asks for patience.

    Raises:
        Misconfigured: credentials are missing or cannot be read.
        PermissionDenied: Core refuses the credentials or the name.
        InvalidRequest: Core refuses the request, or its certificate does not hold.
    """
    stored = identity.load(state)
    if stored is None and _ended(settings.auth, state):
        raise Misconfigured(NOT_ACCEPTED)
    if stored is not None and stored.validity.not_after > clock.now():
        finish(settings.auth, state)
        return stored
    backoff = Backoff()
    while True:
        for url in settings.core.urls:
            try:
                return await _enroll(settings, state, clock, url)
            except _PASSING as exc:
                _log.warning("enrolment has to wait", extra={"url": url, "error": str(exc)})
        await asyncio.sleep(backoff.next())


def finish(auth: AuthSettings, state: StateDirectory) -> None:
    """Remove what enrolment no longer needs. Done again at a start after a crash in between."""
    if state.read(PENDING_FILE) is None:
        return
    if auth.secret_id_file is not None and not auth.keep and auth.secret_id is None:
        _remove(auth.secret_id_file)
    state.remove(REFUSED_FILE)
    state.remove(PENDING_FILE)


def lay_aside(state: StateDirectory) -> None:
    """Take the identity out of use, durably. Its key stays: Core may still know the name by it."""
    refused = state.read(identity.IDENTITY_FILE)
    if refused is not None:
        state.write(REFUSED_FILE, refused)
        state.remove(identity.IDENTITY_FILE)


async def _enroll(settings: Settings, state: StateDirectory, clock: Clock, url: str) -> Identity:
    pending = await _pending(settings, state)
    api = CoreApi(url, await trust.trust_in(settings.core, url))
    if pending.token is not None:
        try:
            return await _with_token(settings, state, clock, api, pending, pending.token)
        except PermissionDenied:
            _log.info("the token of an earlier try is no longer good; logging in again")
    role_id = _role_id(settings.auth)
    pending = await _opened(settings.auth, state, api, pending)
    try:
        secret_id = pending.secret_id or _secret_id(settings.auth).reveal()
        token = await api.login(settings.auth.mount, role_id, secret_id)
    except (InvalidRequest, PermissionDenied):
        # A SecretID that was opened and is no good would stand in the way of the next one.
        _store(state, msgspec.structs.replace(pending, secret_id=None))
        raise
    pending = msgspec.structs.replace(pending, token=token)
    _store(state, pending)
    return await _with_token(settings, state, clock, api, pending, token)


async def _opened(auth: AuthSettings, state: StateDirectory, api: CoreApi, pending: _Pending) -> _Pending:
    """Open the SecretID if it is wrapped and not open yet, and keep it.

    Raises:
        PermissionDenied: the wrapping token was made elsewhere; it was swapped, and is not opened.
    """
    if auth.wrapped_from is None or pending.secret_id is not None:
        return pending
    wrapping = _secret_id(auth).reveal()
    made_at = await api.made_at(wrapping)
    if made_at != auth.wrapped_from:
        raise PermissionDenied(
            f"the wrapping token was made at {made_at}, not at {auth.wrapped_from}: it stays closed"
        )
    pending = msgspec.structs.replace(pending, secret_id=await api.unwrap(wrapping))
    _store(state, pending)
    return pending


def _store(state: StateDirectory, pending: _Pending) -> None:
    state.write(PENDING_FILE, msgspec.json.encode(pending))


async def _with_token(
    settings: Settings, state: StateDirectory, clock: Clock, api: CoreApi, pending: _Pending, token: str
) -> Identity:
    key = identity.load_key(pending.key.encode("ascii"))
    begun = await api.begin(token)
    answer = await api.enroll(
        token,
        {
            "csr": make_request(key, begun.nonce),
            "name": settings.host.name,
            "version": __version__,
            "labels": dict(settings.host.labels),
        },
    )
    authorities = [answer.ca_chain] if isinstance(answer.ca_chain, str) else answer.ca_chain
    enrolled = identity.certified(key, answer.certificate, authorities, answer.root_sha256, clock.now())
    if enrolled.agent_id != answer.agent_id or not answer.gateway_uri.startswith(enrolled.gateway_prefix):
        raise InvalidRequest("Core's answer and its certificate name different identities")
    identity.save_endpoints(state, answer.agent_urls)
    identity.save(state, enrolled)
    _log.info("enrolled", extra={"agent_id": enrolled.agent_id, "cluster": enrolled.cluster})
    finish(settings.auth, state)
    return enrolled


async def _pending(settings: Settings, state: StateDirectory) -> _Pending:
    """Return the enrolment under way, or begin one; an expired or refused identity lends its key."""
    stored = state.read(PENDING_FILE)
    if stored is not None:
        try:
            return msgspec.json.decode(stored, type=_Pending)
        except msgspec.MsgspecError as exc:
            raise InvalidRequest(f"{state.path / PENDING_FILE} is damaged; remove it") from exc
    before = identity.load(state) or identity.load(state, REFUSED_FILE)
    key = before.key if before else await asyncio.to_thread(keys.generate, settings.auth.key_type)
    pending = _Pending(key=keys.private_pem(key).decode("ascii"))
    _store(state, pending)
    return pending


def lacks_secret_id(auth: AuthSettings) -> bool:
    """Tell whether there is no SecretID to log in with."""
    return auth.secret_id is None and not (auth.secret_id_file and auth.secret_id_file.is_file())


def _ended(auth: AuthSettings, state: StateDirectory) -> bool:
    """Tell whether Core refused the identity and there is nothing to enrol again with."""
    under_way = state.read(PENDING_FILE) is not None
    return not under_way and lacks_secret_id(auth) and state.read(REFUSED_FILE) is not None


def _role_id(auth: AuthSettings) -> str:
    if auth.role_id is None:
        raise Misconfigured("auth.role_id is missing (or set SECRETHUB_ROLE_ID)")
    return auth.role_id


def _secret_id(auth: AuthSettings) -> Sensitive[str]:
    if auth.secret_id is not None:
        return auth.secret_id
    if auth.secret_id_file is None:
        raise Misconfigured("auth.secret_id_file is missing (or set SECRETHUB_SECRET_ID)")
    try:
        return Sensitive(auth.secret_id_file.read_text("ascii").strip())
    except (OSError, UnicodeDecodeError) as exc:
        raise Misconfigured(f"auth.secret_id_file {auth.secret_id_file} cannot be read") from exc


def _remove(file: Path) -> None:
    try:
        file.unlink(missing_ok=True)
        at = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(at)
        finally:
            os.close(at)
    except OSError as exc:
        _log.error(
            "the SecretID's file cannot be removed; set auth.keep = true if that is meant",
            extra={"path": str(file), "error": exc.strerror},
        )
