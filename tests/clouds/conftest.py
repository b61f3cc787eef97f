"""The three clouds, one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clouds import aws_cloud, azure_cloud, gcp_cloud
from tests.clouds.cloud import Cloud


@pytest.fixture(params=["awskms", "gcpckms", "azurekeyvault"])
def cloud(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    """A running cloud with one key that the node may use."""
    if request.param == "awskms":
        with aws_cloud.running(tmp_path) as started:
            yield started
    elif request.param == "gcpckms":
        with gcp_cloud.running(tmp_path) as started:
            yield started
    else:
        with azure_cloud.running(tmp_path, monkeypatch) as started:
            yield started
