"""The TLS door: which certificate it shows when, which versions it speaks, and nothing in clear."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from cluster.ready import boot_fingerprint
from secrethub.pki.boot import boot_certificate
from serve.timing import Timing
from serve.tls_certificate import boot_identity
from tests.gateway.behind import refusing, until
from tests.gateway.conftest import Node, node_settings, running
from tests.gateway.raw_http import GUARD, Reply, request, wire


def unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def trusting(root: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=root)
    return context


async def shown(node: Node, context: ssl.SSLContext | None = None) -> x509.Certificate:
    async with wire(node, context or unverified()) as connection:
        found = connection.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    return x509.load_der_x509_certificate(found)


async def root_of(node: Node) -> str:
    """Return the root as ``GET /v1/pki/ca_chain`` ends with it."""
    chain = (await node.client.get("/v1/pki/ca_chain")).text
    last = chain.split("-----END CERTIFICATE-----")[-2]
    return last + "-----END CERTIFICATE-----\n"


async def asked(node: Node, context: ssl.SSLContext, *headers: str, host: str = "anything") -> Reply:
    async with wire(node, context) as connection:
        await connection.send(request("/v1/sys/health", *headers, host=host))
        return await connection.reply()


async def until_issued(node: Node, root: str) -> x509.Certificate:
    async with asyncio.timeout(GUARD):
        while True:
            try:
                return await shown(node, trusting(root))
            except ssl.SSLError:
                await asyncio.sleep(0.05)


async def test_before_unseal_the_nodes_own_certificate(database_url: str, tmp_path: Path) -> None:
    """The boot certificate is self-signed, names the node, is private, and survives restarts."""
    settings = node_settings(tmp_path, database_url)
    fingerprints = set()
    for _ in range(2):
        async with running(settings) as node:
            certificate = await shown(node)
            assert certificate.issuer == certificate.subject
            names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            assert names.get_values_for_type(x509.DNSName) == ["localhost"]
            assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]
            fingerprints.add(certificate.fingerprint(hashes.SHA256()).hex())
            assert (await asked(node, unverified())).status == 501
    # It is what a node says of itself when it starts, so that clients can pin it.
    assert fingerprints == {boot_fingerprint(settings)}
    kept = Path(settings.state_dir) / "boot-identity.pem"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in Path(settings.state_dir).glob(".boot*")] == []


async def test_a_pinned_boot_certificate_verifies(sealed_node: Node) -> None:
    """A client that was given the boot certificate trusts it for the node's names."""
    chain, _ = boot_identity(sealed_node.settings)
    assert (await asked(sealed_node, trusting(chain.decode()))).status == 501


def test_processes_agree_on_one_boot_certificate(tmp_path: Path) -> None:
    """Replicas that start at once show the same certificate; a killed one's draft is in nobody's way."""
    settings = node_settings(tmp_path, "postgresql://unused")
    left = Path(settings.state_dir) / f".boot-identity.{os.getpid()}"
    left.write_text("left behind")
    first = boot_identity(settings)
    assert not left.exists()
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(lambda _: boot_identity(settings), range(8))) == {first}


async def test_after_unseal_the_built_in_authority(node: Node) -> None:
    """The certificate verifies against the root that the API gives out, name and address included."""
    root = await root_of(node)
    certificate = await until_issued(node, root)
    assert certificate.issuer != certificate.subject
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert x509.oid.ExtendedKeyUsageOID.SERVER_AUTH in usage
    assert certificate.not_valid_before_utc <= datetime.now(UTC) < certificate.not_valid_after_utc
    assert node.settings.tls is not None
    context = trusting(root)
    for name in ("127.0.0.1", "localhost"):
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", node.settings.tls.port, ssl=context, server_hostname=name
        )
        writer.write(request())
        assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
        writer.close()
    with pytest.raises(ssl.SSLCertVerificationError):
        await asyncio.open_connection(
            "127.0.0.1", node.settings.tls.port, ssl=context, server_hostname="core.example.com"
        )
    with pytest.raises(ssl.SSLCertVerificationError):
        await shown(node, ssl.create_default_context())
    assert (await node.call("PUT", "sys/seal")).status_code == 204
    assert (await shown(node, context)) == certificate


async def test_the_operators_certificate_stays(database_url: str, tmp_path: Path) -> None:
    """A given certificate is shown before and after unseal, whatever the built-in CA could issue."""
    chain, key = boot_certificate("given", ["core.example.com"], ["127.0.0.1"], datetime.now(UTC))
    for name, content in (("chain.pem", chain), ("key.pem", key)):
        (tmp_path / name).write_bytes(content)
    settings = msgspec.structs.replace(
        node_settings(tmp_path, database_url),
        tls_certificate_file=str(tmp_path / "chain.pem"),
        tls_key_file=str(tmp_path / "key.pem"),
    )
    wanted = x509.load_pem_x509_certificate(chain)
    async with running(settings) as node:
        assert await shown(node) == wanted
        await node.initialise()
        await node.unseal()
        running_tasks = {task.get_name() for task in asyncio.all_tasks()}
        assert "tls-clients" in running_tasks
        assert "tls-certificate" not in running_tasks
        assert await shown(node) == wanted
        assert not (Path(settings.state_dir) / "boot-identity.pem").exists()
        assert boot_fingerprint(settings) is None


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
async def test_versions_and_ciphers(sealed_node: Node) -> None:
    """TLS 1.2 and 1.3 with forward secrecy and AEAD, nothing older."""
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = unverified()
        context.minimum_version = context.maximum_version = version
        async with wire(sealed_node, context) as connection:
            cipher, spoken, bits = connection.writer.get_extra_info("cipher")
            assert spoken in {"TLSv1.2", "TLSv1.3"}
            assert bits >= 128
            assert "GCM" in cipher or "CHACHA20" in cipher
            assert connection.writer.get_extra_info("compression") is None
    for refused in ("TLSv1_1", "TLSv1"):
        context = unverified()
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = getattr(ssl.TLSVersion, refused)
        context.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await shown(sealed_node, context)
    context = unverified()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("AES128-SHA:AES256-SHA:AES128-GCM-SHA256:@SECLEVEL=0")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await shown(sealed_node, context)


async def test_nothing_in_clear(sealed_node: Node) -> None:
    """Plain HTTP on the TLS port gets no HTTP answer, TLS on the plain port no handshake."""
    assert sealed_node.settings.tls is not None
    assert sealed_node.settings.http is not None
    reader, writer = await asyncio.open_connection("127.0.0.1", sealed_node.settings.tls.port)
    writer.write(request())
    async with asyncio.timeout(GUARD):
        with contextlib.suppress(ConnectionError):
            assert b"HTTP" not in await reader.read()
    writer.close()
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.open_connection("127.0.0.1", sealed_node.settings.http.port, ssl=unverified())


async def test_http_over_tls(node: Node) -> None:
    """The same API answers, LIST included, with HSTS; Host is the network's business there."""
    reply = await asked(node, unverified(), host="core.example.com")
    assert reply.status == 200
    assert reply.header("strict-transport-security") == "max-age=31536000"
    assert reply.header("cache-control") == "no-store"
    async with wire(node, unverified()) as connection:
        token = f"X-Vault-Token: {node.root}"
        await connection.send(request("/v1/sys/policies/acl", token, method="LIST"))
        assert (await connection.reply()).json()["data"]["keys"] == ["default", "root"]
        await connection.send(b"LI", b"ST / HTTP/1.1\r\nbroken\r\n\r\n")
        assert (await connection.reply()).status == 400
        assert await connection.rest() == b""


@pytest.mark.parametrize("timing", [Timing(certificate_retry=0.05)])
async def test_a_failed_renewal_is_tried_again(sealed_node: Node, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever goes wrong with a new certificate, the door stays open and the next try counts."""
    before = await shown(sealed_node)
    url = sealed_node.settings.database_url
    await sealed_node.initialise()
    async with refusing(url, "INSERT ON certificates"):
        await sealed_node.unseal()

        async def failed_twice() -> bool:
            return caplog.text.count("no certificate for 4443 yet") >= 2

        await until(failed_twice)
        assert await shown(sealed_node) == before
    assert await until_issued(sealed_node, await root_of(sealed_node)) != before


async def test_a_broken_given_certificate_stops_the_start(database_url: str, tmp_path: Path) -> None:
    """Nothing is served with a certificate that cannot be used."""
    for name in ("chain.pem", "key.pem"):
        (tmp_path / name).write_text("nonsense")
    settings = msgspec.structs.replace(
        node_settings(tmp_path, database_url),
        tls_certificate_file=str(tmp_path / "chain.pem"),
        tls_key_file=str(tmp_path / "key.pem"),
    )
    with pytest.raises(ssl.SSLError):
        async with running(settings):
            pass
