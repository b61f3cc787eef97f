"""What PostgreSQL stores instead of a password (RFC 5802, RFC 7677): made here, so it sees no password.

A statement's text may end up in the server's log, in ``pg_stat_activity`` and in ``pg_stat_statements``;
with a verifier in it there is nothing to steal but what the server keeps anyway.
"""

from __future__ import annotations

import base64
import hashlib
import hmac

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

from secrethub.errors import InvalidRequest

ITERATIONS = 4096
"""PostgreSQL's own number. Passwords here are random, so more would cost time and add nothing."""


def verifier(password: str, salt: bytes, iterations: int = ITERATIONS) -> str:
    """Return the SCRAM-SHA-256 verifier of a password, as ``pg_authid.rolpassword`` has it.

    Args:
        password: printable ASCII: SASLprep (RFC 4013) leaves that as it is.
        salt: 16 random bytes.
        iterations: of PBKDF2.

    Raises:
        InvalidRequest: the password has another character.
    """
    if not password or not password.isascii() or not password.isprintable():
        raise InvalidRequest("passwords of PostgreSQL are printable ASCII")
    # Not hashlib's: the OpenSSL that comes with cryptography takes half as long as many a system's own.
    salted = PBKDF2HMAC(SHA256(), 32, salt, iterations).derive(password.encode())
    client = hmac.digest(salted, b"Client Key", "sha256")
    stored = hashlib.sha256(client).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    texts = [base64.b64encode(part).decode() for part in (salt, stored, server)]
    return f"SCRAM-SHA-256${iterations}:{texts[0]}${texts[1]}:{texts[2]}"
