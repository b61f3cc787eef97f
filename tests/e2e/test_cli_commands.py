"""The command line against a real server, as people and pipelines use it."""

from __future__ import annotations

import base64
import json
import os
import stat
import subprocess
from collections.abc import Iterator

import pytest
import yaml

from cluster.demo.core import Core, environment
from cluster.demo.ledger import mend, tamper
from cluster.demo.processes import command
from secrethub.client.settings import parse_address
from secrethub.client.trust import fingerprint, presented_chain
from tests.e2e.shell import Shell
from tests.folders import traversable

STRANGE = base64.b64encode(b"x" * 33).decode()
"""A share in its right form, of no cluster."""
POLICY = {
    "version": "1",
    "statements": [{"effect": "allow", "paths": ["secrets/app/*"], "capabilities": ["read"]}],
}


@pytest.fixture(scope="module")
def core() -> Iterator[Core]:
    """A server in one process, not initialised."""
    with traversable() as folder:
        started = Core(folder, "--single-process", "--uninitialised")
        try:
            started.wait()
            yield started
        finally:
            started.stop()


@pytest.fixture(scope="module")
def blank(core: Core, tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """A shell of somebody who has not logged in."""
    folder = tmp_path_factory.mktemp("shell")
    return Shell({**environment(SECRETHUB_ADDR=core.addresses().api), "HOME": str(folder)}, folder)


@pytest.fixture(scope="module")
def shell(blank: Shell, core: Core) -> Shell:
    """A shell of the operator who has initialised, unsealed and logged in."""
    assert "Initialised" in blank("status", code=3)
    endpoint = parse_address(core.addresses().api_tls)
    boot, *_ = map(fingerprint, presented_chain(endpoint, 5.0))
    assert "Initialised" in blank("--address", endpoint.url, "status", "--ca-sha256", boot, code=3)
    assert "fingerprint" in blank("--address", endpoint.url, "status", "--ca-sha256", "00" * 32, code=1)
    assert blank.json("status", code=3) is not None
    said = blank("kv", "list", code=1)
    assert "secrethub login" in said
    said = blank("operator", "unseal", stdin=STRANGE + "\n", code=1)
    assert "operator init" in said
    said = blank("kv", "list", code=1, SECRETHUB_TOKEN="hvs.none")
    assert "operator init" in said
    keys = blank.folder / "keys.json"
    assert "keys.json" in blank("operator", "init", "--out", str(keys))
    assert stat.S_IMODE(keys.stat().st_mode) == 0o600
    made = json.loads(keys.read_text())
    said = blank("kv", "list", code=1, SECRETHUB_TOKEN=made["root_token"])
    assert "operator unseal" in said
    assert blank.json("status", code=2)["sealed"] is True
    said = blank("operator", "unseal", stdin=STRANGE + "\n", code=1)
    assert "share" in said
    first, *others = made["keys_base64"]
    assert "1 of 3" in blank("operator", "unseal", stdin=first)
    assert "0 of 3" in blank("operator", "unseal", "--reset")
    shares = "\n".join([first, *others])
    assert blank.json("operator", "unseal", "--file", "-", stdin=shares)["sealed"] is False
    assert "true" in blank("status")
    assert "stored in" in blank("login", stdin=made["root_token"] + "\n")
    assert stat.S_IMODE((blank.folder / ".secrethub" / "token").stat().st_mode) == 0o600
    return blank


def test_init_unseal_and_login_bring_up_a_new_cluster(shell: Shell) -> None:
    """After the fixture's path the stored token is root's, and is not shown by lookup."""
    found = shell.json("token", "lookup")
    assert found["policies"] == ["root"]
    assert "id" not in found


def test_secrets_are_written_from_arguments_files_and_standard_input_and_read_back(shell: Shell) -> None:
    """Every way of giving a value leads to the value; versions, fields and formats agree."""
    (shell.folder / "key.pem").write_text("-----BEGIN-----\nx\n")
    made = shell.json("kv", "put", "app/db", "user=app", "key=@key.pem", "password=-", stdin="p@ss wörd\n")
    assert made["version"] == 1
    data = {"user": "app", "key": "-----BEGIN-----\nx\n", "password": "p@ss wörd"}
    assert shell.json("kv", "get", "secrets/app/db")["data"] == data
    assert yaml.safe_load(shell("kv", "get", "app/db", "--format", "yaml"))["data"] == data
    assert shell("kv", "get", "app/db", "--field", "password") == "p@ss wörd\n"
    assert "has no field 'pin'" in shell("kv", "get", "app/db", "--field", "pin", code=1)
    document = {"nested": {"list": [1, None, True]}}
    assert (
        shell.json("kv", "put", "app/db", "--json", "-", "--cas", "1", stdin=json.dumps(document))["version"]
        == 2
    )
    assert shell.json("kv", "get", "app/db")["data"] == document
    assert shell.json("kv", "get", "app/db", "--version", "1")["data"] == data
    assert "kv get" in shell("kv", "put", "app/db", "x=1", "--cas", "1", code=1)
    table = shell("kv", "get", "app/db", "--version", "1")
    assert "-----BEGIN-----\\nx\\n" in table


def test_listing_and_deleting(shell: Shell) -> None:
    """Names are listed below a path, nothing is an empty list, and a deleted version says so."""
    shell("kv", "put", "tree/a", "x=1")
    shell("kv", "put", "tree/b/c", "x=1")
    assert shell.json("kv", "list", "tree") == ["a", "b/"]
    assert "tree/" in shell("kv", "list")
    assert shell.json("kv", "list", "nothing/here") == []
    assert "Deleted" in shell("kv", "delete", "tree/a")
    for path in ("tree/a", "tree/none"):
        deleted = shell.run("kv", "delete", path)
        assert (deleted.returncode, deleted.stdout) == (0, "")
        assert f"no secret {path}" in deleted.stderr
    said = shell("kv", "get", "tree/a", code=1)
    assert "deleted" in said
    assert "try tree/none" in shell("kv", "get", "secret/data/tree/none", code=1)
    written = shell.run("kv", "put", "secret/data/tree/d", "x=1")
    assert (written.returncode, "called data/tree/d" in written.stderr) == (0, True)
    assert shell.run("kv", "put", "tree/d", "x=1").stderr == ""
    assert "not found" in shell("kv", "get", "tree/none", code=1)


def test_policies_are_written_read_listed_and_deleted(shell: Shell) -> None:
    """A policy's source comes back as it was written; a wrong one is refused with its fault."""
    source = json.dumps(POLICY, indent=4)
    (shell.folder / "app.json").write_text(source)
    shell("policy", "write", "app-readers", "app.json")
    assert shell("policy", "read", "app-readers") == source + "\n"
    assert "app-readers" in shell.json("policy", "list")
    acl = '{"path": {"secret/data/app/*": {"capabilities": ["read"]}}}'
    shell("policy", "write", "acl", "-", stdin=acl)
    said = shell("policy", "write", "wrong", "-", stdin='{"version": "1", "statement": []}', code=1)
    assert "statement" in said
    assert "Policy acl is deleted" in shell("policy", "delete", "acl")
    assert "not found" in shell("policy", "read", "acl", code=1)
    deleted = shell.run("policy", "delete", "acl")
    assert (deleted.returncode, deleted.stdout) == (0, "")
    assert "no policy acl" in deleted.stderr


def test_policies_are_tried_and_refusals_explained(shell: Shell) -> None:
    """What a policy would decide is told with its rules, and why a request was refused by its id."""
    hcl = 'path "secret/data/app/*" {\n  capabilities = ["read"]\n}\n'
    (shell.folder / "app.hcl").write_text(hcl)
    said = shell("policy", "test", "secrets/app/db", "--file", "app.hcl")
    assert "allowed" in said
    assert "secret/data/app/*" in said
    assert "denied" in shell("policy", "test", "secrets/app/db", "delete", "--file", "-", stdin=hcl, code=1)
    found = shell.json("policy", "test", "sys/seal", "update", "--policy", "root")
    assert found["allowed"] is True  # type: ignore[index,call-overload]
    assert "--policy" in shell("policy", "test", "secrets/app/db", code=2)
    shell("policy", "write", "in-hcl", "app.hcl")
    token = shell("token", "create", "--policy", "in-hcl", "--plain").strip()
    refused = shell("kv", "get", "secrets/other", code=1, SECRETHUB_TOKEN=token)
    request_id = refused.partition("[request ")[2].partition("]")[0]
    assert "no policy allows read" in shell("audit", "why", request_id)


def test_the_built_in_policy_root_is_no_empty_line(shell: Shell) -> None:
    """It has no document; that is said beside the output."""
    read = shell.run("policy", "read", "root")
    assert (read.returncode, read.stdout) == (0, "")
    assert "allows everything" in read.stderr


def test_versions_are_changed_compared_and_rolled_back_to(shell: Shell) -> None:
    """Everything that can be done to versions and metadata can be done from the command line."""
    shell("kv", "put", "life/db", "user=app", "password=one")
    assert shell.json("kv", "patch", "life/db", "password=-", "--cas", "1", stdin="two\n")["version"] == 2
    assert shell.json("kv", "patch", "life/db", "--json", "-", stdin='{"user": null}')["version"] == 3
    assert shell.json("kv", "get", "life/db")["data"] == {"password": "two"}
    compared = shell.json("kv", "compare", "life/db", "--from", "1", "--to", "3")
    assert (compared["removed"], compared["changed"].keys()) == ({"user": "app"}, {"password"})
    assert "removed" in shell("kv", "compare", "life/db")
    assert "kv history" in shell("kv", "rollback", "life/db", "--version", "9", code=1)
    assert shell.json("kv", "rollback", "life/db", "--version", "1", "--cas", "3")["version"] == 4
    assert "back" in shell("kv", "undelete", "life/db", "--versions", "2", "--format", "table")
    shell("kv", "delete", "life/db", "--versions", "2,3")
    shell("kv", "undelete", "life/db", "--versions", "3")
    assert "destroyed" in shell("kv", "destroy", "secrets/life/db", "--versions", "1")
    versions = shell.json("kv", "history", "life/db")["versions"]
    assert [bool(versions[n]["deletion_time"]) for n in "1234"] == [False, True, False, False]
    assert versions["1"]["destroyed"] is True
    assert shell("kv", "history", "life/db").splitlines()[2].startswith("4 ")
    assert "1,2,5" in shell("kv", "destroy", "life/db", "--versions", "x", code=2)


def test_metadata_and_finding_secrets(shell: Shell) -> None:
    """Settings and labels are written and removed; secrets are found by them, and by who reads them."""
    shell("kv", "put", "found/db", "x=1")
    settings = ("--max-versions", "5", "--custom", "owner=web", "--custom", "tier=1", "--cas-required")
    assert "written" in shell("kv", "metadata", "put", "found/db", *settings)
    assert "--cas VERSION" in shell("kv", "put", "found/db", "x=2", code=1)
    shell("kv", "metadata", "patch", "found/db", "--remove", "tier", "--no-cas-required")
    shown = shell.json("kv", "metadata", "get", "found/db")
    assert (shown["custom_metadata"], shown["cas_required"], shown["max_versions"]) == (
        {"owner": "web"},
        False,
        5,
    )
    assert "owner" in shell("kv", "metadata", "get", "found/db")
    assert "--custom owner=web" in shell("kv", "metadata", "put", "found/db", code=2)
    assert shell.json("kv", "search", "WEB")["keys"] == ["found/db"]
    assert "found/db" in shell("kv", "search", "db", "--below", "secrets/found", "--limit", "1")
    shell("kv", "get", "found/db")
    assert shell.json("kv", "readers", "found/db")["reads"][0]["version"] == 1
    assert "token:" in shell("kv", "readers", "found/db")
    assert "found/db" not in shell("kv", "unused", "--since", "1h")
    assert "found/db" in shell("kv", "unused", "found", "--since", "0s")
    assert "is deleted" in shell("kv", "metadata", "delete", "found/db")
    assert "no secret found/db" in shell.run("kv", "metadata", "delete", "found/db").stderr
    assert "not found" in shell("kv", "get", "found/db", code=1)


def test_a_deletion_without_a_look_promises_nothing(shell: Shell) -> None:
    """A token that may delete but not look deletes, and does not claim that there was something."""
    allowed = {"auth/approle/role/*": ["delete"], "secret/data/*": ["delete"]}
    document = {"path": {path: {"capabilities": granted} for path, granted in allowed.items()}}
    shell("policy", "write", "sweeper", "-", stdin=json.dumps(document))
    token = shell("token", "create", "--policy", "sweeper", "--plain").strip()
    shell("approle", "write", "swept")
    said = shell("approle", "delete", "swept", SECRETHUB_TOKEN=token)
    assert "if there was one" in said
    assert "swept" not in shell.json("approle", "list")  # type: ignore[operator]


def test_a_machine_logs_in_with_approle_and_reads_only_what_it_may(shell: Shell) -> None:
    """RoleID and SecretID lead to a token that its policy binds; the SecretID is written privately."""
    shell("policy", "write", "machine", "-", stdin=json.dumps(POLICY))
    shell("kv", "put", "app/machine", "x=1")
    shell("kv", "put", "other/machine", "x=1")
    shell(
        "approle", "write", "host-1", "--policy", "machine", "--token-ttl", "1h", "--secret-id-num-uses", "3"
    )
    assert shell.json("approle", "read", "host-1")["token_policies"] == ["machine"]
    assert "host-1" in shell.json("approle", "list")
    role_id = shell("approle", "role-id", "host-1", "--plain").strip()
    out = shell.folder / "secret-id"
    assert "secret_id" not in shell.json(
        "approle", "secret-id", "host-1", "--out", str(out), "--num-uses", "2"
    )
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    login = ("--role-id", role_id, "--secret-id-file", str(out))
    assert shell.json("approle", "login", *login)["policies"] == ["default", "machine"]
    token = shell("login", "--method", "approle", *login, "--no-store").strip()
    assert "invalid role or secret ID" in shell("login", "--method", "approle", *login, code=1)
    assert "x" in shell("kv", "get", "app/machine", SECRETHUB_TOKEN=token)
    said = shell("kv", "get", "other/machine", code=1, SECRETHUB_TOKEN=token)
    assert "permission denied" in said
    assert "[request " in said
    assert shell.json("approle", "read", "host-1")["token_no_default_policy"] is False
    shell("approle", "write", "host-1", "--no-default-policy")
    assert shell.json("approle", "read", "host-1")["token_no_default_policy"] is True
    shell("approle", "write", "host-1", "--token-ttl", "2h")
    assert shell.json("approle", "read", "host-1")["token_no_default_policy"] is True
    shell("approle", "write", "host-1", "--default-policy")
    assert shell.json("approle", "read", "host-1")["token_no_default_policy"] is False
    assert "Role host-1 is deleted" in shell("approle", "delete", "host-1")
    assert "no role host-1" in shell.run("approle", "delete", "host-1").stderr


def test_tokens_are_created_renewed_and_revoked(shell: Shell) -> None:
    """A child token lives until it is revoked, and is worth nothing afterwards."""
    token = shell("token", "create", "--policy", "default", "--ttl", "20m", "--plain").strip()
    found = json.loads(
        shell("token", "renew", "--increment", "10m", "--format", "json", SECRETHUB_TOKEN=token)
    )
    assert 0 < found["lease_duration"] <= 600
    assert "Revoked" in shell("token", "revoke", "--self", SECRETHUB_TOKEN=token)
    for said in (
        shell("token", "lookup", code=1, SECRETHUB_TOKEN=token),
        shell("login", "--no-store", code=1, stdin=token),
    ):
        assert "token lookup" not in said
        assert "unknown, expired or revoked" in said
    assert "token lookup" in shell("kv", "get", "a", code=1, SECRETHUB_TOKEN=token)


def test_a_certificate_is_issued_into_files(shell: Shell) -> None:
    """Certificate, chain and a private key that only its owner reads are written to a folder."""
    folder = shell.folder / "tls"
    assert "no folder" in shell("pki", "issue", "db.example.com", "--out-dir", str(folder), code=1)
    folder.mkdir()
    made = shell.json(
        "pki", "issue", "db.example.com", "--ip", "10.0.0.1", "--ttl", "24h", "--out-dir", str(folder)
    )
    assert "private_key" not in made
    assert made["serial_number"]
    assert stat.S_IMODE((folder / "key.pem").stat().st_mode) == 0o600
    assert (folder / "cert.pem").read_text().count("BEGIN CERTIFICATE") == 1
    assert (folder / "ca-chain.pem").read_text().count("BEGIN CERTIFICATE") == 2
    assert "PRIVATE KEY-----\n" in shell("pki", "issue", "db.example.com")
    assert "BEGIN" not in shell("pki", "issue", "db.example.com", "--out-dir", str(folder))


def test_agents_are_listed_even_when_there_are_none(shell: Shell) -> None:
    """No agent is an empty list; an unknown one is not found."""
    assert shell.json("agent", "list") == []
    assert "not found" in shell("agent", "show", "00000000-0000-4000-8000-000000000000", code=1)


def test_the_ledger_verifies(shell: Shell) -> None:
    """An untouched ledger is intact."""
    assert "intact" in shell("audit", "verify")
    found = shell.json("audit", "verify")
    assert found["ok"] is True
    assert found["entries"] > 0


def test_a_ledger_that_was_tampered_with_fails_and_names_the_record(shell: Shell, core: Core) -> None:
    """A row changed by SQL makes verification exit with 1 and name stream and number."""
    shell("kv", "put", "app/ledger", "x=1")
    shell("kv", "get", "app/ledger")
    url = core.addresses().database_url
    row = tamper(url, "app/ledger")
    try:
        said = shell("audit", "verify", code=1)
    finally:
        mend(url, row)
    assert "damaged" in said
    assert f"stream {row.stream} record {row.number}" in said
    assert "intact" in shell("audit", "verify")


def test_a_server_that_cannot_start_says_why_in_one_line(shell: Shell, core: Core) -> None:
    """A missing settings file is told by its name, a port in use by the option that sets it."""
    said = shell("server", "--config", "nowhere.toml", code=1)
    assert "nowhere.toml" in said.splitlines()[-1]
    port = core.addresses().api.rpartition(":")[2]
    folder = str(core.data_dir.with_name("2nd"))
    others = [word for name in ("tls", "agent", "serve", "metrics") for word in (f"--{name}-port", "0")]
    said = shell("dev", "--single-process", "--data-dir", folder, "--port", port, *others, code=1)
    assert f"--port: port {port} is in use; choose another" in said.splitlines()[-1]


def test_https_needs_the_right_root(shell: Shell, core: Core) -> None:
    """The CA file or its fingerprint opens HTTPS; without either the certificate is not trusted."""
    addresses = core.addresses()
    assert addresses.ca_file is not None
    fingerprint = json.loads((core.data_dir / "dev.json").read_text())["ca_sha256"]
    assert shell("status", "--address", addresses.api_tls, "--ca-file", str(addresses.ca_file))
    assert shell("--address", addresses.api_tls, "--ca-sha256", fingerprint, "token", "lookup")
    said = shell("token", "lookup", "--address", addresses.api_tls, code=1)
    assert "--ca-file" in said


def test_no_answer_is_one_clear_line(shell: Shell) -> None:
    """A server that is not there is named together with what to check."""
    said = shell("status", "--address", "http://127.0.0.1:1", code=1)
    assert "SECRETHUB_ADDR" in said
    assert len(said.splitlines()) == 1


def test_output_into_a_closed_pipe_is_no_traceback(shell: Shell) -> None:
    """When the reader has enough, the command ends quietly."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        command("policy", "list"),
        stdout=writing,
        stderr=subprocess.PIPE,
        env=shell.environment,
        text=True,
        check=False,
    )
    os.close(writing)
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr


def test_after_sealing_reads_fail_and_status_says_so(shell: Shell) -> None:
    """Seal stops reads with advice; the kept shares open the cluster again."""
    assert "Sealed" in shell("operator", "seal")
    shell("status", code=2)
    assert "operator unseal" in shell("kv", "get", "app/db", code=1)
    keys = json.loads((shell.folder / "keys.json").read_text())["keys_base64"]
    shell("operator", "unseal", stdin="\n".join(keys[-3:]))
    assert shell("status")
