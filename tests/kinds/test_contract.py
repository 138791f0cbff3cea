"""The kinds that ship keep the contract of all kinds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from remit.core import scope
from remit.core.secret import Secret
from remit.kinds import egress, elsewhere, http, mcp, postgres, spiffe
from remit.ports import Resource
from remit.testing.kind_contract import CASES, Case, KindUnderTest, kind_contract

API = {"type": "http", "resource": "api", "actions": ["GET"], "paths": ["/**"], "args": "any", "ttl": 60, "uses": 3}
SALES = {"type": "postgres", "resource": "sales", "actions": ["select"], "tables": ["a.b"], "ttl": 60}
SALES |= {"columns": {"a.b": ["c"]}}
MESH = {"type": "spiffe", "resource": "mesh", "actions": ["x509"], "audiences": ["https://a.example"], "ttl": 60}


FORGE: dict[str, object] = {
    "type": "mcp",
    "resource": "forge",
    "actions": ["tools/call"],
    "tools": {"open": {"repo": "acme/app"}},
}
FORGE |= {"prompts": "any", "resources": ["repo://acme/**"], "ttl": 60, "uses": 3}
NPM: dict[str, object] = {"type": "egress", "resource": "npm", "actions": ["connect"], "hosts": ["registry.example"]}

ORDERS: dict[str, object] = {"type": "elsewhere", "resource": "orders", "actions": ["read"], "datatypes": ["order"]}
ORDERS |= {"locations": ["https://orders.example/eu"], "privileges": ["clerk"]}


def resource(raw: dict[str, object], destination: str, **settings: object) -> Resource:
    bound = scope.parse([raw])
    return Resource(bound[0].resource, bound[0].type, destination, bound, None, settings)


def _subjects() -> list[KindUnderTest]:
    api = resource(API, "https://api.example", provider="openai")
    sales = resource(SALES, "postgresql://remit@db.example/sales")
    mesh = resource(MESH, "spiffe://remit.test")
    forge = resource(FORGE, "mcp+https://forge.example/mcp")
    npm = resource(NPM, "egress:registry.example,*.files.example")
    orders = resource(ORDERS, "elsewhere:https://orders.example", bearer=True)
    return [
        KindUnderTest(
            egress.KIND,
            npm,
            [
                replace(npm, destination="egress:index.example"),
                replace(npm, destination="egress:"),
                replace(npm, destination="egress://registry.example"),
                replace(npm, destination="registry.example"),
                replace(npm, settings={"at": "127.0.0.1:8443/base"}),
                replace(npm, settings={"at": 8443}),
                replace(npm, settings={"private": 1}),
                replace(npm, settings={"provider": "generic"}),
                replace(npm, secret="npm"),
            ],
        ),
        KindUnderTest(
            elsewhere.KIND,
            orders,
            [
                replace(orders, destination="https://orders.example"),
                replace(orders, destination="elsewhere:orders"),
                replace(orders, destination="elsewhere:https://orders.example#x"),
                replace(orders, settings={"bearer": "yes"}),
                replace(orders, settings={"client": "orders-api"}),
                replace(orders, secret="orders"),
            ],
        ),
        KindUnderTest(
            http.KIND,
            api,
            [replace(api, destination="http://api.example"), replace(api, settings={"provider": "nobody"})],
            Secret("key-0123456789ab"),
        ),
        KindUnderTest(
            mcp.KIND,
            forge,
            [
                replace(forge, destination="https://forge.example/mcp"),
                replace(forge, destination="mcp+http://forge.example/mcp"),
                replace(forge, destination="mcp+https://forge.example/mcp/"),
                replace(forge, settings={"inject": {"body": "key"}}),
                replace(forge, settings={"reads_bodies": True}),
            ],
            Secret("key-0123456789ab"),
        ),
        KindUnderTest(
            postgres.KIND,
            sales,
            [replace(sales, destination="postgresql://db.example"), replace(sales, settings={"tls": "off"})],
            Secret("password"),
        ),
        KindUnderTest(
            spiffe.KIND,
            mesh,
            [replace(mesh, destination="spiffe://other.test"), replace(mesh, settings={"depth": 1})],
        ),
    ]


@pytest.mark.parametrize("subject", _subjects(), ids=lambda subject: subject.kind.name)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_a_kind_keeps_the_contract(case: Case, subject: KindUnderTest) -> None:
    kind_contract(case, subject)
