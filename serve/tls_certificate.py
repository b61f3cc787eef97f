"""The certificate of 4443: the operator's, or the built-in CA's, or before unseal the node's own.

The boot certificate is self-signed, made at the first start and kept in the node's state directory; its
fingerprint is printed then, and the command line can pin it. New handshakes use the newest certificate;
connections that are open stay as they are.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import ssl
from datetime import UTC, datetime
from pathlib import Path

from secrethub.background import Background
from secrethub.engines.cert.trust import client_authorities
from secrethub.engines.runtime import Core
from secrethub.errors import SecretHubError
from secrethub.node import NodeSettings
from secrethub.operations.transport_ca import issue_gateway_certificate
from secrethub.pki.boot import boot_certificate
from secrethub.pki.chain import from_pem, validity
from secrethub.pki.validity import renewal_due
from secrethub.storage.authority import CERT_ROLES, CERTIFICATE_AUTHORITIES
from secrethub.storage.freshness import Changed
from serve.client_certificates import SwappingContext
from serve.timing import Timing

_CHECK_SECONDS = 3600.0
_DECIDING = (f"{CERT_ROLES.name}/", f"{CERTIFICATE_AUTHORITIES.name}/")

_log = logging.getLogger(__name__)


def boot_identity(settings: NodeSettings) -> tuple[bytes, bytes]:
    """Return chain and key of the node's boot certificate, making them at the first start.

    The first process to link the file into place wins, so that replicas agree on one certificate.
    """
    path = Path(settings.state_dir) / "boot-identity.pem"
    if not path.exists():
        chain, key = boot_certificate(
            settings.node, settings.tls_names, settings.tls_addresses, datetime.now(UTC)
        )
        draft = path.with_name(f".boot-identity.{os.getpid()}")
        # One that a process with the same number left behind when it was killed.
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(key + chain)
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
        draft.unlink()
    text = path.read_bytes()
    cut = text.index(b"-----BEGIN CERTIFICATE-----")
    return text[cut:], text[:cut]


class TlsIdentity:
    """The SSL context of 4443, and the tasks that keep it as it should be: its certificate, its clients'."""

    def __init__(self, core: Core, timing: Timing) -> None:
        self._core = core
        self._retry = timing.certificate_retry
        settings = core.settings
        self._given = settings.tls_certificate_file is not None and settings.tls_key_file is not None
        if settings.tls_certificate_file is not None and settings.tls_key_file is not None:
            chain = Path(settings.tls_certificate_file).read_bytes()
            key = Path(settings.tls_key_file).read_bytes()
        else:
            chain, key = boot_identity(settings)
        self._swapping = SwappingContext(chain, key)
        self.context: ssl.SSLContext = self._swapping.context
        self._moved = asyncio.Event()
        self._moved.set()
        self._background = Background(self._retry)
        core.caches.subscribe(self._announced)
        core.caches.on_flush(self._moved.set)

    def start(self) -> None:
        """Begin to follow the roles of client certificates, and the built-in CA unless one was given."""
        self._background.begin("tls-clients", self._follow_roles)
        if not self._given:
            self._background.begin("tls-certificate", self._run)

    async def stop(self) -> None:
        """End."""
        await self._background.end()

    def _announced(self, change: Changed) -> None:
        if change.kind in {"authority", "issued"} and change.key.startswith(_DECIDING):
            self._moved.set()

    async def _follow_roles(self) -> None:
        """Ask for the certificates that some role of an auth method lets in."""
        while True:
            await self._core.opened.wait()
            await self._moved.wait()
            self._moved.clear()
            try:
                self._swapping.trust(await client_authorities(self._core))
            except SecretHubError as exc:
                _log.warning("the authorities of clients are not known yet: %s", exc.code)
                self._moved.set()
                await asyncio.sleep(self._retry)

    async def _run(self) -> None:
        settings = self._core.settings
        due: datetime | None = None
        while True:
            await self._core.opened.wait()
            if due is not None and self._core.clock.now() < due:
                await asyncio.sleep(_CHECK_SECONDS)
                continue
            try:
                chain, key = await issue_gateway_certificate(
                    self._core, settings.node, settings.tls_names, settings.tls_addresses
                )
                self._swapping.identify(chain, key)
                due = renewal_due(validity(from_pem(chain.decode("ascii"))[0]))
            except SecretHubError as exc:
                _log.warning("no certificate for 4443 yet: %s", exc.code)
                await asyncio.sleep(self._retry)
