"""What the demo shows, in order. Each step asks for what it must see and fails when it does not."""

from __future__ import annotations

import json
import secrets
import time
from pathlib import Path
from typing import Any

from cluster.demo.actors import kill_seal_state, seal_state_pid
from cluster.demo.core import Core
from cluster.demo.host import SECRET, Host
from cluster.demo.ledger import mend, tamper, verify
from cluster.demo.processes import until
from cluster.demo.steps import DemoFailed, Steps
from cluster.folders import write_private
from secrethub.client import ApiError, Client

SHARES = 5
THRESHOLD = 3
_ROLE = "host-1"
_POLICY = {
    "version": "1",
    "statements": [{"effect": "allow", "paths": ["secrets/prod/**"], "capabilities": ["read"]}],
}


class Story:
    """The demo's acts, over one Core and one host.

    Args:
        folder: the temporary folder.
        core: started, not yet waited for.
        host: nothing on it yet.
        steps: tells what happens.
    """

    def __init__(self, folder: Path, core: Core, host: Host, steps: Steps) -> None:
        self._folder = folder
        self._core = core
        self._host = host
        self._steps = steps
        self._shares: list[str] = []
        self._token = ""
        self._password = ""

    @property
    def token_file(self) -> Path:
        """Where the root token is kept while the demo's cluster lives."""
        return self._folder / "root-token"

    def tell(self) -> None:
        """Show everything.

        Raises:
            DemoFailed: a step did not do what it must.
            ClientError: Core did not answer as it must.
        """
        self._start()
        self._initialise()
        self._unseal()
        self._prepare()
        self._deliver()
        self._read_locally()
        self._change()
        self._lose_seal_state()
        self._seal()
        self._audit()

    def _start(self) -> None:
        with self._steps.step("Start PostgreSQL, Ray, Serve and the gateway (secrethub dev --uninitialised)"):
            self._core.wait()
            found = self._core.addresses()
            self._show(f"{found.api}  {found.api_tls}  agents: {found.agent_url}")

    def _initialise(self) -> None:
        with (
            self._steps.step(f"Initialise with {SHARES} shares, of which {THRESHOLD} unseal"),
            self._core.client() as api,
        ):
            made = api.write("sys/init", {"secret_shares": SHARES, "secret_threshold": THRESHOLD}).data
            self._shares, self._token = list(made["keys_base64"]), str(made["root_token"])
            write_private(self.token_file, self._token + "\n")
            write_private(self._folder / "unseal-keys.json", json.dumps(self._shares) + "\n")
            self._expect(len(self._shares) == SHARES, f"{SHARES} shares")

    def _unseal(self) -> None:
        with self._steps.step(f"Unseal with {THRESHOLD} of the shares"), self._core.client() as api:
            for share in self._shares[1 : 1 + THRESHOLD]:
                status = api.write("sys/unseal", {"key": share}).data
                progress = f"progress {status['progress']} of {status['t']}"
                self._show(progress if status["sealed"] else "unsealed")
            self._expect(status["sealed"] is False, "unsealed")
        self._core.wait_for_root()

    def _prepare(self) -> None:
        with self._steps.step("Write a policy, an AppRole and a secret"), self._api() as api:
            api.write(f"sys/policies/acl/{_ROLE}", {"policy": _POLICY})
            api.write(f"auth/approle/role/{_ROLE}", {"token_policies": [_ROLE]})
            self._write_secret(api)

    def _deliver(self) -> None:
        with self._steps.step("Start an agent on a host, with an AppRole and a template"), self._api() as api:
            role_id = str(api.read(f"auth/approle/role/{_ROLE}/role-id").data["role_id"])
            secret_id = str(api.write(f"auth/approle/role/{_ROLE}/secret-id").data["secret_id"])
            write_private(self._host.secret_id_file, secret_id + "\n")
            self._host.start_application()
            self._host.start_agent(self._core.addresses(), role_id)
            took = self._host.wait_for(self._password)
            self._show(f"enrolled, connected over mTLS, wrote its file in {took:.2f} s:")
            self._show(f"{self._host.file} ({self._host.mode()})")
            self._show("  " + self._host.content().strip().replace("\n", "\n  "))
            self._host.wait_for_reload(self._password)
            self._show("the application got SIGHUP and read it")
            self._expect(not self._host.secret_id_file.exists(), "the SecretID's file is gone after its use")

    def _read_locally(self) -> None:
        with self._steps.step("Read the secret through the agent's Unix socket"):
            shown, password = self._host.read_through_socket()
            self._show(f"{shown}\n  password: {password}")
            self._expect(password == self._password, "the socket answers the current password")

    def _change(self) -> None:
        with self._steps.step("Change the secret in Core"), self._api() as api:
            reloads = self._host.reloads()
            began = time.monotonic()
            self._write_secret(api)
            self._host.wait_for(self._password)
            took = time.monotonic() - began
            self._show(f"new file after {took * 1000:.0f} ms:")
            self._show("  " + self._host.content().strip().replace("\n", "\n  "))
            self._host.wait_for_reload(self._password)
            self._show(f"the application read it after {(time.monotonic() - began) * 1000:.0f} ms")
            self._expect(self._host.reloads() == reloads + 1, "one reload for one change")

    def _lose_seal_state(self) -> None:
        with self._steps.step("Kill the SealState actor (SIGKILL) and go on reading"), self._api() as api:
            old = kill_seal_state()
            reads = 0
            began = time.monotonic()

            def back() -> bool:
                nonlocal reads
                api.read(f"secrets/{SECRET}")
                reads += 1
                new = seal_state_pid()
                return new not in {None, old}

            until(back, "a new SealState", self._core.child)
            self._show(f"process {old} is gone, process {seal_state_pid()} took its place")
            self._show(f"{reads} reads meanwhile, none failed")
            until(lambda: self._sealed(api) is False, "SealState's answer", self._core.child, pause=0.05)
            self._show(f"back, and unsealed, after {time.monotonic() - began:.2f} s")

    def _seal(self) -> None:
        with self._steps.step("Seal"), self._api() as api:
            api.write("sys/seal")
            try:
                api.read(f"secrets/{SECRET}")
            except ApiError as exc:
                self._show(f"a read answers {exc}")
                self._expect((exc.status, exc.code) == (503, "sealed"), "reads answer 503 sealed")
            else:
                raise DemoFailed("a sealed Core still answers secrets")
        self._unseal()

    def _audit(self) -> None:
        with self._steps.step("Verify the audit ledger"), self._api() as api:
            found = verify(api)
            self._show(f"{found['entries']} entries: {'intact' if found['ok'] else found['first_bad']}")
            self._expect(found["ok"], "an intact ledger")
        with self._steps.step("Change one row of the ledger by SQL and verify again"), self._api() as api:
            url = self._core.addresses().database_url
            row = tamper(url, SECRET)
            self._show(f"changed by SQL: who made the last read (stream {row.stream}, number {row.number})")
            found = verify(api)
            bad = found["first_bad"] or {}
            self._show(
                f"verification: stream {bad.get('stream')}, number {bad.get('number')}: {bad.get('reason')}"
            )
            self._expect(
                (bad.get("stream"), bad.get("number")) == (row.stream, row.number), "the row is named"
            )
            mend(url, row)

    def _write_secret(self, api: Client) -> None:
        self._password = secrets.token_urlsafe(12)
        version = api.write(f"secrets/{SECRET}", {"data": {"user": "app", "password": self._password}}).data[
            "version"
        ]
        self._show(f"secrets/{SECRET} version {version}: password {self._password}")

    def _sealed(self, api: Client) -> Any:
        try:
            return api.read("sys/seal-status").data["sealed"]
        except ApiError:
            return None

    def _api(self) -> Client:
        return self._core.client(self._token)

    def _show(self, text: str) -> None:
        self._steps.show(text)

    def _expect(self, holds: bool, what: str) -> None:
        if not holds:
            raise DemoFailed(f"expected: {what}")
