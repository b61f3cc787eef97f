"""What Ray's cluster launcher makes of ``ray-cluster.yaml``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

FILE = Path(__file__).parents[2] / "ray-cluster.yaml"
LAUNCHER = """
import json, sys, yaml
from ray.autoscaler._private import commands
from ray.autoscaler._private.local.node_provider import LocalNodeProvider
config = commands._bootstrap_config(yaml.safe_load(open(sys.argv[1])), no_config_cache=True)
provider = LocalNodeProvider(config["provider"], config["cluster_name"])
config, kept_open = commands._set_up_config_for_head_node(config, provider, False)
for_head = json.load(open(kept_open.name))
print(json.dumps([sorted(config["file_mounts"]), for_head]))
"""
"""What ``ray up`` does before it connects to the head."""


def test_the_launcher_takes_the_file_and_copies_no_key(tmp_path: Path) -> None:
    """Ray accepts the file and starts every worker; the head gets it and no file besides.

    For Ray checks no host keys: a private key would go to whoever answers in the head's place.
    """
    environment = {"RAY_TMPDIR": str(tmp_path), "TMPDIR": str(tmp_path), "HOME": str(tmp_path)}
    launcher = subprocess.run(
        [sys.executable, "-c", LAUNCHER, str(FILE)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    copied, for_head = json.loads(launcher.stdout.splitlines()[-1])
    assert copied == ["~/ray_bootstrap_config.yaml"]
    assert for_head["auth"] == {"ssh_user": "secrethub"}
    (kind,) = for_head["available_node_types"].values()
    assert kind["min_workers"] == kind["max_workers"] == len(for_head["provider"]["worker_ips"]) == 1
