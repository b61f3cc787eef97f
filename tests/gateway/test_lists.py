"""Lists of names are read in pages by whoever wants to, and whole by everybody else."""

from __future__ import annotations

from typing import Any

from tests.gateway.behind import sql
from tests.gateway.conftest import Node, native

_NAMES = [f"page-{letter}" for letter in "abcde"]

LISTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "approle": ("auth/approle/role", "POST", {}),
    "users": ("auth/userpass/users", "POST", {"password": "a long enough password"}),
    "cert": ("auth/cert/certs", "POST", {}),
    "token roles": ("auth/token/roles", "POST", {}),
    "policies": ("sys/policies/acl", "PUT", {"policy": native("secrets/a")}),
    "quotas": ("sys/quotas/rate-limit", "POST", {"rate": 1000}),
    "lease quotas": ("sys/quotas/lease-count", "POST", {"max_leases": 1000}),
    "password policies": (
        "sys/policies/password",
        "POST",
        {"policy": 'length = 20\nrule "charset" { charset = "abc" }'},
    ),
    "aws roles": (
        "secrets/dynamic/aws/roles",
        "POST",
        {"credential_type": "federation_token", "policy_arns": ["arn:aws:iam::aws:policy/ReadOnlyAccess"]},
    ),
    "cubbyhole": ("cubbyhole", "POST", {"k": "v"}),
}


async def _made(node: Node, kind: str) -> str:
    """Make five things of a kind and return where they are listed."""
    place, method, body = LISTS[kind]
    for name in _NAMES:
        more = {}
        if "quotas" in kind:
            more = {"path": f"secrets/dynamic/aws/creds/{name}"}
        if kind == "cert":
            more = {"certificate": (await node.call("GET", "pki/ca/pem")).text}
        answer = await node.call(method, f"{place}/{name}", json={**body, **more})
        assert answer.status_code in {200, 204}, (kind, answer.text)
    return place


async def test_pages(node: Node) -> None:
    """``limit`` bounds a page, ``after`` goes on behind it, and behind the end there is nothing."""
    for kind in LISTS:
        place = await _made(node, kind)

        async def page(place: str = place, **query: str) -> list[str] | int:
            answer = await node.call("LIST", place, params=query)
            if answer.status_code != 200:
                return answer.status_code
            keys = [str(key) for key in answer.json()["data"]["keys"]]
            return [key for key in keys if key.startswith("page-")]

        assert await page() == _NAMES, kind
        assert await page(after="page", limit="2") == _NAMES[:2], kind
        assert await page(after="page-b", limit="2") == _NAMES[2:4], kind
        assert await page(after="page-d") == _NAMES[4:] == await page(after="page-d", limit="0"), kind
        # The policies of the system are there in any case.
        assert await page(after="page-e") == ([] if kind == "policies" else 404), kind
        for wrong in ("-1", "two", "1e3", "٣"):
            assert await page(limit=wrong) == 400, kind


async def test_what_is_denied_takes_no_place(node: Node) -> None:
    """A page is full of names that the caller may know of."""
    place = await _made(node, "approle")
    policy = native(place, f"{place}/*", capabilities=("list",))
    policy["statements"] += native(f"{place}/page-b", capabilities=("list",), effect="deny")["statements"]
    token = await node.token("lister", policy)
    answer = await node.call("LIST", place, token, params={"limit": "3"})
    assert answer.json()["data"]["keys"] == ["page-a", "page-c", "page-d"]


async def test_a_folder_of_many_secrets(node: Node) -> None:
    """Without a limit all names are in the list, however many; with one as many as were asked for."""
    await node.call("POST", "secret/data/many/0", json={"data": {}})
    await sql(
        node.settings.database_url,
        """INSERT INTO kv_secrets
           SELECT store, 'many/' || n, id || n, revision, current_version, oldest_version, max_versions,
                  cas_required, delete_version_after, custom_metadata, created_at, updated_at, versions, mac
           FROM kv_secrets, generate_series(1, 20500) AS n""",
    )
    for query, count in (("", 20_501), ("&limit=15000", 15_000), ("&limit=30000", 20_501)):
        answer = await node.call("GET", f"secret/metadata/many?list=true{query}")
        assert len(set(answer.json()["data"]["keys"])) == count, query
