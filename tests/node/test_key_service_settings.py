"""Keys of clouds in a node's settings: what is read, and what is refused with its name."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.kms.settings import key_services
from cluster.settings import load
from secrethub.errors import Misconfigured
from secrethub.node import KeyServiceSettings


def written(folder: Path, section: str) -> Path:
    """A settings file with ``section`` in it, beside a file of credentials."""
    for name in ("cluster.key", "credentials"):
        (folder / name).touch(0o600)
        (folder / name).write_text("00" * 32)
    path = folder / "secrethub.toml"
    path.write_text(
        f'database_url = "postgresql://nowhere/x"\ncluster_key_file = "{folder}/cluster.key"\n{section}'
    )
    path.chmod(0o600)
    return path


def test_a_key_is_read(tmp_path: Path) -> None:
    """What the operator sets is what the node's processes are told."""
    path = written(
        tmp_path,
        f"""[key_services.main]
type = "awskms"
key = "alias/unseal"
region = "eu-central-1"
credentials_file = "{tmp_path}/credentials"
[key_services.second]
type = "gcpckms"
key = "projects/p/locations/l/keyRings/r/cryptoKeys/k"
ambient = true
""",
    )
    assert key_services(load(path).key_services) == (
        KeyServiceSettings(
            name="main",
            kind="awskms",
            key="alias/unseal",
            region="eu-central-1",
            credentials_file=f"{tmp_path}/credentials",
        ),
        KeyServiceSettings(
            name="second",
            kind="gcpckms",
            key="projects/p/locations/l/keyRings/r/cryptoKeys/k",
            ambient=True,
        ),
    )


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ('type = "awskms"\nkey = "k"\nregion = "r"', "credentials_file, or ambient"),
        ('type = "awskms"\nkey = "k"\nambient = true', "region"),
        ('type = "gcpckms"\nkey = "k"\nambient = true\ncredentials_file = "x"', "not both"),
        ('type = "gcpckms"\nkey = "k"\ncredentials_file = "/nowhere/at/all"', "credentials_file"),
        ('type = "gcpckms"\nkey = "k"\nambient = true\nca_file = "/nowhere/at/all"', "ca_file"),
        ('type = "pkcs11"\nkey = "k"\nambient = true', "type"),
        ('type = "gcpckms"\nkey = "k"\nambient = true\nsecret = "x"', "secret"),
        ('type = "gcpckms"\nambient = true', "key"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, section: str, message: str) -> None:
    """A setting that is missing, unknown or does not go with another is refused with its name."""
    path = written(tmp_path, f"[key_services.main]\n{section}\n")
    with pytest.raises(Misconfigured, match=r"key_services\.main") as refused:
        key_services(load(path).key_services)
    assert message in str(refused.value)


def test_a_readable_file_of_credentials_is_refused(tmp_path: Path) -> None:
    """Others must not be able to read what the node signs in with."""
    path = written(
        tmp_path,
        f'[key_services.main]\ntype = "gcpckms"\nkey = "k"\ncredentials_file = "{tmp_path}/credentials"\n',
    )
    (tmp_path / "credentials").chmod(0o644)
    with pytest.raises(Misconfigured, match="0600"):
        key_services(load(path).key_services)
