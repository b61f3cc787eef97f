"""Clients of AWS with the configured credentials and no others. Large; imported where it is needed.

Nothing of the environment takes part: no variable, no profile, no file, no metadata service. A client that
found Core's own role there would let whoever may configure an engine act with it.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import boto3
import botocore.loaders
import botocore.session
from botocore.config import Config

from secrethub.sensitive import Sensitive

_NOTHING_AMBIENT: dict[str, tuple[None, None, Any, None]] = {
    "profile": (None, None, None, None),
    "config_file": (None, None, "/dev/null", None),
    "credentials_file": (None, None, "/dev/null", None),
    "ca_bundle": (None, None, None, None),
    "data_path": (None, None, None, None),
}


def client(
    service: str,
    *,
    region: str,
    endpoint: str,
    access_key: str,
    secret_key: Sensitive[str],
    config: Config,
) -> Any:
    """Return a client; nothing is connected to yet. It may be used by several threads.

    Args:
        service: ``s3``, ``iam``, ``sts``.
        region: of the service.
        endpoint: URL of the service; empty for Amazon's own.
        access_key: who we are there; with an empty one botocore would look for another.
        secret_key: proves it.
        config: times and retries.
    """
    assert access_key
    inner = botocore.session.Session(session_vars=_NOTHING_AMBIENT)
    inner.register_component("data_loader", _descriptions())
    session = boto3.session.Session(botocore_session=inner)
    return session.client(
        service,
        region_name=region,
        endpoint_url=endpoint or None,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key.reveal(),
        verify=True,
        config=Config(proxies={}, ignore_configured_endpoint_urls=True).merge(config),
    )


@cache
def _descriptions() -> botocore.loaders.Loader:
    """Return what reads the descriptions of services that come with botocore, once each: they are long."""
    loader = botocore.loaders.Loader
    # Not those of the user's home, either.
    return loader(extra_search_paths=[loader.BUILTIN_DATA_PATH], include_default_search_paths=False)
