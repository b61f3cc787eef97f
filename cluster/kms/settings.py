"""What an operator sets about keys of clouds, and what a node's processes are told of it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from cluster.folders import check_private
from secrethub.errors import Misconfigured
from secrethub.node import KeyServiceSettings

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path.expanduser()))  # noqa: PTH100 - resolves no links: they may be rotated


File = Annotated[Path, AfterValidator(_absolute)]


class KeyServiceSection(BaseModel):
    """A key of a cloud's key service, ``[key_services.<name>]``."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True)

    type: Literal["awskms", "gcpckms", "azurekeyvault"]
    key: Annotated[str, Field(min_length=1, max_length=1024)]
    """AWS: id, ARN or alias. Google: ``projects/…/cryptoKeys/…``. Azure: ``https://<vault>/keys/<name>``."""
    region: str | None = None
    """AWS."""
    endpoint: str | None = None
    """Where the service is, if not where its cloud has it; for Azure the authority to sign in at."""
    ca_file: File | None = None
    """PEM with the roots to trust instead of the public ones."""
    credentials_file: File | None = None
    """0600 file: AWS's credentials file, Google's service account key, or Azure's ids and secret as JSON."""
    ambient: bool = False
    """Sign in as what the cloud says that this machine is. Otherwise nothing of the surroundings is used."""


def key_services(sections: Mapping[str, KeyServiceSection]) -> tuple[KeyServiceSettings, ...]:
    """Return the keys as a node's processes are told of them.

    Raises:
        Misconfigured: a name, a file or a combination cannot be used; the setting is named.
    """
    return tuple(_checked(name, section) for name, section in sorted(sections.items()))


def _checked(name: str, section: KeyServiceSection) -> KeyServiceSettings:
    setting = f"key_services.{name}"
    if _NAME.fullmatch(name) is None:
        raise Misconfigured(f"{setting}: a name has small letters, digits and hyphens, 63 at most")
    if section.ambient == (section.credentials_file is not None):
        raise Misconfigured(f"{setting}: give credentials_file, or ambient = true, and not both")
    if section.type == "awskms" and section.region is None:
        raise Misconfigured(f"{setting}.region is needed")
    if section.credentials_file is not None:
        check_private(section.credentials_file, f"{setting}.credentials_file")
    if section.ca_file is not None and not section.ca_file.is_file():
        raise Misconfigured(f"{setting}.ca_file: {section.ca_file} is not there")
    return KeyServiceSettings(
        name=name,
        kind=section.type,
        key=section.key,
        region=section.region,
        endpoint=section.endpoint,
        ca_file=None if section.ca_file is None else str(section.ca_file),
        credentials_file=None if section.credentials_file is None else str(section.credentials_file),
        ambient=section.ambient,
    )
