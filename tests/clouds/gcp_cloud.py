"""Google Cloud KMS for tests: Encrypt and Decrypt over gRPC and TLS, for one service account."""

from __future__ import annotations

import base64
import contextlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import trustme
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from google.cloud import kms_v1

from secrethub.node import KeyServiceSettings
from tests.clouds.cloud import Cloud

KEY = "projects/p/locations/europe/keyRings/r/cryptoKeys/k"
_SERVICE = "google.cloud.kms.v1.KeyManagementService"


class _Kms:
    """The service: one key, one account."""

    def __init__(self, account: rsa.RSAPublicKey) -> None:
        self._account = account
        self._cipher = AESGCM(os.urandom(32))

    def encrypt(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._authenticate(request.name, context)
        nonce = os.urandom(12)
        sealed = self._cipher.encrypt(nonce, request.plaintext, request.additional_authenticated_data)
        return kms_v1.EncryptResponse.pb()(name=request.name, ciphertext=nonce + sealed)

    def decrypt(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._authenticate(request.name, context)
        nonce, sealed = request.ciphertext[:12], request.ciphertext[12:]
        try:
            opened = self._cipher.decrypt(nonce, sealed, request.additional_authenticated_data)
        except (InvalidTag, ValueError):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "Decryption failed")
        return kms_v1.DecryptResponse.pb()(plaintext=opened)

    def _authenticate(self, key: str, context: grpc.ServicerContext) -> None:
        given = dict(context.invocation_metadata()).get("authorization", "")
        try:
            signed, _, signature = given.removeprefix("Bearer ").rpartition(".")
            self._account.verify(_decoded(signature), signed.encode(), padding.PKCS1v15(), hashes.SHA256())
            claims = json.loads(_decoded(signed.partition(".")[2]))
        except (InvalidSignature, ValueError):
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "not the account")
        if claims["iss"] != "node@p.iam.gserviceaccount.com" or key != KEY:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "no such key for this account")


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Cloud]:
    """Run it with one key and one service account."""
    ca, account = trustme.CA(), rsa.generate_private_key(65537, 2048)
    certificate = ca.issue_cert("localhost")
    ca_file, credentials = folder / "gcp-ca.pem", folder / "gcp.json"
    ca.cert_pem.write_to_path(ca_file)
    credentials.touch(0o600)
    _write(credentials, account)
    kms = _Kms(account.public_key())
    server = grpc.server(ThreadPoolExecutor(2))
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(
            method,
            request_deserializer=kind.pb().FromString,
            response_serializer=lambda answer: answer.SerializeToString(),
        )
        for name, method, kind in (
            ("Encrypt", kms.encrypt, kms_v1.EncryptRequest),
            ("Decrypt", kms.decrypt, kms_v1.DecryptRequest),
        )
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, handlers),))
    chain = b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
    pair = [(certificate.private_key_pem.bytes(), chain)]
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials(pair))
    server.start()
    cloud = Cloud(
        settings=KeyServiceSettings(
            name="gcp",
            kind="gcpckms",
            key=KEY,
            endpoint=f"localhost:{port}",
            ca_file=str(ca_file),
            credentials_file=str(credentials),
        ),
        stop=lambda: server.stop(None).wait(),
        deny=lambda: _write(credentials, rsa.generate_private_key(65537, 2048)),
    )
    try:
        yield cloud
    finally:
        cloud.close()


def _write(path: Path, key: rsa.RSAPrivateKey) -> None:
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    account = {
        "type": "service_account",
        "project_id": "p",
        "private_key_id": "1",
        "private_key": pem.decode(),
        "client_email": "node@p.iam.gserviceaccount.com",
        "token_uri": "https://localhost/none",
    }
    path.write_text(json.dumps(account))


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
