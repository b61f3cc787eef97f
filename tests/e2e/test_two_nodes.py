"""Two nodes of one cluster: either serves, either may die."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.api import Api, readers
from tests.e2e.hosts import Host
from tests.e2e.load import Load
from tests.e2e.nodes import Node, TwoNodes
from tests.e2e.processes import stopped, the, until

pytestmark = pytest.mark.timeout(300 + 60 * float(os.environ.get("SECRETHUB_SOAK_MINUTES", "0.5")))
GATEWAY = r"ray::ServeReplica:secrethub:Gateway"


@pytest.fixture(scope="module")
def nodes(place: Path, empty_database: str) -> Iterator[TwoNodes]:
    """A head and a worker on one PostgreSQL, unsealed through the head."""
    made = TwoNodes(place, empty_database)
    try:
        made.begin()
        yield made
    finally:
        made.end()


@pytest.fixture
def whole(nodes: TwoNodes) -> TwoNodes:
    """The cluster with both nodes serving."""
    nodes.make_whole()
    return nodes


@pytest.fixture
def head(whole: TwoNodes) -> Iterator[Api]:
    """The head's API with the root token."""
    with Api(whole.head.api, whole.root_token) as api:
        yield api


@pytest.fixture
def worker(whole: TwoNodes) -> Iterator[Api]:
    """The worker's API with the root token."""
    with Api(whole.worker.api, whole.root_token) as api:
        yield api


@pytest.fixture
def hosts(whole: TwoNodes, request: pytest.FixtureRequest) -> Iterator[Callable[..., Host]]:
    """Makes hosts whose agents deliver a secret and are connected to a chosen node."""
    made: list[Host] = []

    def make(name: str, secret: str, at: Node) -> Host:
        role = f"{request.node.name[:40]}-{name}"
        host = Host(whole.folder / f"{role}", role)
        made.append(host)
        with Api(at.api, whole.root_token) as api:
            machine = api.machine(role, readers(f"secrets/{secret}"))
        urls = [at.api_tls, whole.other(at).api_tls]
        host.enrol(urls, whole.ca_file, machine, secret)
        host.settle_at(at.name)
        return host

    try:
        yield make
    finally:
        for host in made:
            host.stop()


def test_one_unseal_opens_both(nodes: TwoNodes) -> None:
    """Shares given to the head alone unseal the worker too."""
    for node in (nodes.head, nodes.worker):
        with Api(node.api) as api:
            status = api.call("GET", "sys/seal-status")
            assert (status["initialized"], status["sealed"]) == (True, False)


def test_what_one_writes_the_other_reads(head: Api, worker: Api) -> None:
    """Every write through one node is read through the other by the very next request."""
    for number in range(20):
        writer, reader = (head, worker) if number % 2 else (worker, head)
        version = writer.put_secret("app/both", value=number)
        assert reader.secret("app/both") == {"value": number}
        assert version == number + 1


def test_a_change_reaches_agents_of_both(
    whole: TwoNodes, head: Api, worker: Api, hosts: Callable[..., Host]
) -> None:
    """A change made through one node is pushed to the agents connected to the other."""
    head.put_secret("app/pushed", value="first")
    at_head, at_worker = hosts("a", "app/pushed", whole.head), hosts("b", "app/pushed", whole.worker)
    for number, writer in enumerate((head, worker, head, worker)):
        writer.put_secret("app/pushed", value=number)
        for host in (at_head, at_worker):
            host.wait_for(number)
    assert at_worker.read("app/pushed") == {"value": 3}
    assert (at_head.gateway(), at_worker.gateway()) == (whole.head.name, whole.worker.name)


def test_a_token_revoked_through_one_reads_nothing_through_the_other(
    whole: TwoNodes, head: Api, worker: Api
) -> None:
    """From the answer to the revocation on, no node reads anything for the token."""
    head.put_secret("app/revoked", value="v")
    machine = head.machine("revoked", readers("secrets/app/revoked"))
    for revoking, reading in ((head, worker), (worker, head)) * 5:
        token = revoking.login(*machine)
        with Api(reading.url, token) as there, Api(revoking.url, token) as here:
            assert there.secret("app/revoked") == {"value": "v"}
            assert here.send("POST", "auth/token/revoke-self").status_code == 204
            assert there.send("GET", "secrets/app/revoked").status_code == 403


def test_a_gateway_that_stood_still_reads_nothing_for_a_revoked_token(
    whole: TwoNodes, head: Api, worker: Api
) -> None:
    """Requests sent to a replica before and while it stood still (SIGSTOP) meanwhile read nothing."""
    head.put_secret("app/still", value="v")
    machine = head.machine("still", readers("secrets/app/still"))
    for node, here, there in ((whole.worker, head, worker), (whole.head, worker, head)):
        gateway = the(node.pid, GATEWAY)
        token = here.login(*machine)
        with Api(there.url, token) as reading, ThreadPoolExecutor(4) as threads:
            assert reading.secret("app/still") == {"value": "v"}
            with stopped(gateway), Api(here.url, token) as revoking:
                waiting = [threads.submit(reading.send, "GET", "secrets/app/still") for _ in range(4)]
                assert revoking.send("POST", "auth/token/revoke-self").status_code == 204
                assert not any(answer.done() for answer in waiting)
            answers = [answer.result() for answer in waiting]
            answers.append(reading.send("GET", "secrets/app/still"))
            assert [answer.status_code for answer in answers] == [403] * 5
        # The same process: it was not replaced while it stood still.
        assert the(node.pid, GATEWAY) == gateway


def survives(
    cluster: TwoNodes, lost: Node, hosts: Callable[..., Host], seconds: float, report: Callable[[str], None]
) -> None:
    """Kill a node under load on the other one, watch that one for a while, and start the lost one again."""
    left = cluster.other(lost)
    with Api(left.api, cluster.root_token) as api:
        api.put_secret("app/survivor", value="before")
        there, here = (hosts(at.name, "app/survivor", at) for at in (lost, left))
        with Load(left.api, cluster.root_token) as load:
            until(lambda: load.answered > 100, "the load runs")
            count = lost.kill()
            killed_at = time.monotonic()
            moved = until(lambda: there.gateway() == left.name, "the agent moves to the other node")
            slowest, number = 0.0, 0
            while time.monotonic() - killed_at < seconds:
                number += 1
                api.put_secret("app/survivor", value=number)
                slowest = max(slowest, *(host.wait_for(number) for host in (there, here)))
                assert api.status() == 200
            # Not only secrets: roles, logins and new agents too.
            hosts("new", "app/survivor", left).wait_for(number)
            started_at = time.monotonic()
            lost.start()
            back = lost.wait()
        for line in (
            f"{lost.name} killed ({count} processes); {left.name} alone: {load.told(killed_at, started_at)}",
            f"  its agent had moved after {moved:.2f} s; {number} changes, slowest push {slowest:.2f} s",
            f"  {lost.name} back after {back:.1f} s without a share; meanwhile {load.told(started_at)}",
        ):
            report(line)
        assert load.failures() == {}
        # What the survivor acknowledged, the other one has too.
        assert asyncio.run(load.lost(lost.api)) == []
        assert api.call("POST", "sys/audit/verify")["data"]["ok"]
    with Api(lost.api, cluster.root_token) as api:
        until(api.is_open, "SealState has the root key again")
        api.put_secret("app/survivor", value="after")
    for host in (there, here):
        host.wait_for("after")


def test_the_head_goes_on_without_the_worker(
    whole: TwoNodes, hosts: Callable[..., Host], watched: float, report: Callable[[str], None]
) -> None:
    """After SIGKILL of all of the worker the head misses nothing; the worker comes back unsealed."""
    survives(whole, whole.worker, hosts, watched, report)


def test_the_worker_goes_on_without_the_head(
    whole: TwoNodes, hosts: Callable[..., Host], watched: float, report: Callable[[str], None]
) -> None:
    """After SIGKILL of all of the head the worker misses nothing; the head takes over again, unsealed."""
    survives(whole, whole.head, hosts, watched, report)


def test_nothing_secret_is_written_down(whole: TwoNodes, empty_database: str) -> None:
    """Shares, keys, the root token and passwords are in no log, no file of Ray, no process and no row."""
    canaries = whole.canaries(empty_database)
    found = canaries.in_database(empty_database) + canaries.in_files(whole.folder)
    found += canaries.in_processes(whole.head.pid, whole.worker.pid)
    assert not found, "\n".join(found)


def test_a_worker_without_its_head_ends_in_good_order(whole: TwoNodes, report: Callable[[str], None]) -> None:
    """SIGTERM ends a worker whose head is gone, with everything below it."""
    whole.head.kill()
    began = time.monotonic()
    whole.worker.stop()
    report(f"a worker without its head ended {time.monotonic() - began:.1f} s after SIGTERM")


@pytest.mark.soak
def test_either_is_killed_again_and_again(
    whole: TwoNodes, watched: float, report: Callable[[str], None]
) -> None:
    """For as long as is asked for, either node is killed while the other serves: no share is ever needed."""
    end = time.monotonic() + watched
    while time.monotonic() < end:
        lost = random.choice((whole.head, whole.worker))
        left = whole.other(lost)
        with Load(left.api, whole.root_token, pause=0.02) as load:
            lost.kill()
            time.sleep(random.uniform(0, 5))
            lost.start()
            back = lost.wait()
            for node in (lost, left):
                with Api(node.api) as api:
                    until(api.is_open, f"{node.name} is open")
        report(f"{lost.name} killed, back after {back:.1f} s; seen at {left.name}: {load.told()}")
        assert load.failures() == {}
        assert asyncio.run(load.lost(lost.api)) == []
    with Api(whole.worker.api, whole.root_token) as api:
        assert api.call("POST", "sys/audit/verify")["data"]["ok"]
