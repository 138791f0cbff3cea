from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from datetime import timedelta

import pytest
from cryptography import x509

from remit.compose.kinds import BUILT_IN
from remit.core.grant import GrantContext
from remit.core.request import Bounds, GrantRequest
from remit.core.scope import Scope
from remit.core.task import Grant, open_task
from remit.ports import Resource
from remit.ports.runs import ReachedHost, RunListener
from remit.run.certificate import reach
from remit.run.environment import RunProvisioning, provision, shared, variables
from tests.broker.world import OPERATOR, START, details, search, warehouse
from tests.support.kinds import simulated

OPENAI = {"type": "http", "resource": "llm", "actions": ["POST"], "paths": ["/v1/**"], "args": "any"}
READ = {"type": "http", "resource": "search", "actions": ["GET"], "paths": ["/v1/**"], "args": "any"}
TABLE = {"type": "postgres", "resource": "warehouse", "actions": ["select"], "tables": ["sales.revenue"]}


KINDS = simulated()


def llm(name: str = "llm") -> Resource:
    return Resource(name, "http", "https://llm.test", (), None, {"provider": "openai"})


SVID = {"type": "spiffe", "resource": "mesh", "actions": ["x509"]}
MESH = Resource("mesh", "spiffe", "spiffe://remit.test", (), None, {})
LOCAL = "http://127.0.0.1:9"  # no host by which anybody knows it
RESOURCES = {item.name: item for item in (search(LOCAL), warehouse(), llm(), llm("second"), MESH)}


def grant(*raw: Mapping[str, object]) -> Grant:
    scope: Scope = details(*raw)
    wanted = GrantRequest(scope, Bounds(timedelta(minutes=5)), purpose="try")
    return open_task("task_1", "grt_1", OPERATOR.subject, wanted, GrantContext(), START).grants[0]


def fitted(held: Grant, *, private: bool = True, sockets: Sequence[str] = ()) -> RunProvisioning:
    numbers = itertools.count(1)
    random = lambda size: next(numbers).to_bytes(size)  # noqa: E731 - octets of its own for each
    return provision(held, RESOURCES, KINDS, random, "/run/remit", private=private, sockets=sockets)


def found(held: Grant, *, sockets: Sequence[str] = ()) -> dict[str, str]:
    fit = fitted(held, sockets=sockets)
    places: dict[str, int | str] = {item.name: item.port or item.path or 0 for item in fit.listeners}
    return variables(held, RESOURCES, KINDS, fit.placeholders, places)


def test_a_run_has_a_gateway_a_channel_and_a_way_to_launch() -> None:
    assert [item.wire() for item in fitted(grant(READ)).listeners] == [
        {"name": "gateway", "port": 8471},
        {"name": "channel", "path": "/run/remit/channel.sock"},
        {"name": "launch", "path": "/run/remit/launch.sock"},
    ]


def reaching(*resources: Resource, private: bool = True) -> RunProvisioning:
    held = grant(*({**READ, "resource": each.name} for each in resources))
    return provision(held, {each.name: each for each in resources}, KINDS, bytes, "/run/remit", private=private)


def web(name: str, destination: str, **settings: object) -> Resource:
    return Resource(name, "http", destination, (), None, settings)


@pytest.mark.parametrize(
    ("resource", "hosts"),
    [
        (web("a", "https://api.search.test"), {"api.search.test": ""}),
        (web("a", "https://api.search.test/v2"), {"api.search.test": "/v2"}),
        (web("a", "https://api.search.test:8443"), {}),
        (web("a", "https://192.0.2.1"), {}),
        (web("a", "http://127.0.0.1:9"), {}),
        (web("a", "http://localhost"), {}),
        (web("a", "https://api.openai.com", provider="openai"), {"api.openai.com": ""}),
        (web("a", "https://api.github.com", provider="github"), {"api.github.com": ""}),
        (web("a", "http://127.0.0.1:9", provider="github"), {"api.github.com": "", "uploads.github.com": ""}),
        (web("a", "https://proxy.corp.test/openai", provider="openai"), {"api.openai.com": ""}),
    ],
)
def test_a_run_reaches_a_resource_by_its_host_and_a_stand_in_by_those_of_its_provider(
    resource: Resource, hosts: dict[str, str]
) -> None:
    fit = reaching(resource)
    assert fit.hosts == {host: ReachedHost("a", base) for host, base in hosts.items()}
    names = [item.name for item in fit.listeners]
    assert ("proxy" in names, "https" in names) == (bool(hosts), bool(hosts))


def test_of_two_resources_at_one_host_the_first_of_the_grant_has_it() -> None:
    first, second = (web(name, "https://api.search.test") for name in ("b", "a"))
    assert reaching(first, second).hosts == {"api.search.test": ReachedHost("b")}


def test_a_run_that_shares_the_machines_network_has_a_proxy_on_a_free_port_and_is_not_led_there() -> None:
    fit = reaching(web("a", "https://api.search.test"), private=False)
    assert [(item.name, item.port) for item in fit.listeners if item.path is None] == [("gateway", 0), ("proxy", 0)]
    told = variables(grant(READ), {}, KINDS, {}, {"gateway": 1, "channel": "/c", "launch": "/l", "proxy": 2})
    assert told["REMIT_PROXY"] == "http://127.0.0.1:2"
    assert "HTTPS_PROXY" not in told


def test_a_run_with_a_network_of_its_own_is_led_to_its_proxy_and_not_with_what_is_on_this_machine() -> None:
    places: dict[str, int | str] = {"gateway": 8471, "channel": "/c", "launch": "/l", "proxy": 8472, "https": 443}
    told = variables(grant(READ), {}, KINDS, {}, places)
    assert {told[name] for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")} == {told["REMIT_PROXY"]}
    assert told["NO_PROXY"] == told["no_proxy"] == "localhost,127.0.0.1,::1"
    assert told["NODE_USE_ENV_PROXY"] == "1"


def test_each_database_of_the_grant_has_a_port() -> None:
    names = {item.name: item.port for item in fitted(grant(READ, TABLE)).listeners}
    assert names["postgres:warehouse"] == 5432


def test_a_database_outside_the_grant_has_none() -> None:
    assert "postgres:warehouse" not in {item.name for item in fitted(grant(READ)).listeners}


def test_a_port_that_is_taken_is_no_resources() -> None:
    second = Resource("second", "postgres", "postgresql://remit@db.test/x", (), None, {})
    held = grant(TABLE, {**TABLE, "resource": "second"})
    fit = provision(held, {**RESOURCES, "second": second}, KINDS, bytes, "/run/remit")
    assert [item.port for item in fit.listeners if item.resource] == [5432, 5433]


def test_ports_in_a_shared_network_are_chosen_by_the_kernel() -> None:
    listeners = fitted(grant(READ, TABLE), private=False).listeners
    assert {item.port for item in listeners if item.path is None} == {0}


def test_a_grant_that_may_have_svids_has_a_workload_api() -> None:
    assert found(grant(SVID, READ), sockets=["workload"])["SPIFFE_ENDPOINT_SOCKET"] == "unix:///run/remit/workload.sock"
    assert "mesh" not in fitted(grant(SVID), sockets=["workload"]).placeholders  # it has no key


def test_without_such_a_detail_or_the_extra_there_is_no_workload_api() -> None:
    assert "SPIFFE_ENDPOINT_SOCKET" not in found(grant(READ), sockets=["workload"])
    assert "SPIFFE_ENDPOINT_SOCKET" not in found(grant(SVID))


def test_each_http_resource_has_a_placeholder_of_its_own() -> None:
    placeholders = fitted(grant(OPENAI, READ, TABLE)).placeholders
    assert placeholders.keys() == {"llm", "search"}
    assert len(set(placeholders.values())) == 2


def test_a_placeholder_has_the_shape_of_its_provider() -> None:
    assert fitted(grant(OPENAI)).placeholders["llm"].startswith("sk-proj-")


def test_the_sdk_finds_its_run() -> None:
    held = found(grant(READ))
    assert (held["REMIT_GRANT"], held["REMIT_SOCKET"]) == ("grt_1", "/run/remit/channel.sock")
    assert held["REMIT_GATEWAY"] == "http://127.0.0.1:8471"


def test_a_providers_variables_name_the_gateway_and_the_placeholder() -> None:
    held = found(grant(OPENAI))
    assert held["OPENAI_BASE_URL"] == "http://127.0.0.1:8471/llm/v1"
    assert held["OPENAI_API_KEY"] == held["REMIT_KEY_LLM"]


def test_which_variables_several_resources_of_a_grant_would_have_is_known() -> None:
    held = grant({**OPENAI, "resource": "second"}, READ, OPENAI)
    of = ("second", "llm")
    assert shared(held, RESOURCES, KINDS) == {"OPENAI_API_KEY": of, "OPENAI_BASE_URL": of}
    assert shared(grant(READ, OPENAI, TABLE), RESOURCES, KINDS) == {}


def test_of_two_resources_of_a_provider_the_first_has_its_variables() -> None:
    held = found(grant({**OPENAI, "resource": "second"}, OPENAI))
    assert held["OPENAI_BASE_URL"].startswith("http://127.0.0.1:8471/second")
    assert held["OPENAI_API_KEY"] == held["REMIT_KEY_SECOND"] != held["REMIT_KEY_LLM"]


def test_a_resource_is_found_by_its_own_name() -> None:
    held = found(grant(READ, TABLE))
    assert held["REMIT_URL_SEARCH"] == "http://127.0.0.1:8471/search"
    assert held["REMIT_PORT_WAREHOUSE"] == "5432"


def test_a_resource_that_is_gone_is_left_out() -> None:
    held = grant(READ)
    fit = provision(held, {}, KINDS, bytes, "/run/remit")
    assert fit.placeholders == {}
    assert "REMIT_URL_SEARCH" not in variables(held, {}, KINDS, {}, {"gateway": 1, "channel": "/c"})


def test_a_listener_knows_its_kind_and_resource() -> None:
    listener = RunListener("postgres:warehouse", port=5432)
    assert (listener.kind, listener.resource) == ("postgres", "warehouse")


def test_a_run_reaches_the_hosts_of_its_details_and_no_authority_speaks_for_them() -> None:
    files = Resource("files", "egress", "egress:*.files.test,index.test", (), None, {})
    more = Resource("more", "egress", "egress:index.test,more.test", (), None, {})
    first = {"type": "egress", "resource": "files", "hosts": ["a.files.test", "*.b.files.test"]}
    last = {**first, "resource": "more", "hosts": ["index.test", "more.test"]}
    held = grant(first, {**first, "hosts": ["index.test"]}, {**READ, "resource": "a"}, last)
    kept = {"files": files, "more": more, "a": web("a", "https://api.search.test")}
    fit = provision(held, kept, KINDS, bytes, "/run/remit")
    of_first = dict.fromkeys(("a.files.test", "*.b.files.test", "index.test"), "files")
    assert fit.passed == {**of_first, "more.test": "more"}
    assert fit.hosts.keys() == {"api.search.test"}
    made = reach("run_1", fit.hosts, START, START + timedelta(hours=1), fit.passed)
    assert made.names == ["a.files.test", "api.search.test", "index.test", "more.test"]
    constraints = x509.load_pem_x509_certificate(made.certificate.encode()).extensions
    permitted = constraints.get_extension_for_class(x509.NameConstraints).value.permitted_subtrees
    assert permitted == [x509.DNSName("api.search.test")]


@pytest.mark.parametrize(("private", "names"), [(True, ["proxy", "https"]), (False, ["proxy"])])
def test_a_run_that_reaches_nothing_but_such_hosts_has_a_proxy_and_an_authority_for_none(
    private: bool,  # noqa: FBT001
    names: list[str],
) -> None:
    files = Resource("files", "egress", "egress:index.test", (), None, {})
    held = grant({"type": "egress", "resource": "files", "hosts": ["index.test"]})
    fit = provision(held, {"files": files}, KINDS, bytes, "/run/remit", private=private)
    assert [item.name for item in fit.listeners if item.path is None] == ["gateway", *names]
    assert not fit.placeholders
    made = reach("run_1", fit.hosts, START, START + timedelta(hours=1), fit.passed)
    constraints = x509.load_pem_x509_certificate(made.certificate.encode()).extensions
    permitted = constraints.get_extension_for_class(x509.NameConstraints).value.permitted_subtrees
    assert permitted == [x509.DNSName("invalid")]


def test_a_server_that_is_a_command_is_reached_where_something_says_how_it_is_started() -> None:
    detail = {"type": "mcp", "actions": ["tools/call"], "tools": "any"}
    started = Resource("gh", "mcp", "mcp+stdio:gh", (), None, {"command": ["server"]})
    kept = {"gh": started, "plain": Resource("plain", "mcp", "mcp+stdio:plain", (), None, {})}
    held = grant({**detail, "resource": "gh"}, {**detail, "resource": "plain"})
    for servers, names in ((True, ["servers"]), (False, [])):
        fit = provision(held, kept, BUILT_IN, bytes, "/run/remit", servers=servers)
        assert [item.name for item in fit.listeners[3:]] == names
        assert [item.serves for item in fit.listeners[3:]] == [("gh",)] * len(names)
        places: dict[str, int | str] = {"gateway": 8471, "channel": "/c"}
        told = variables(held, kept, BUILT_IN, fit.placeholders, places)
        assert told["REMIT_URL_GH"] == "http://127.0.0.1:8471/gh"
        assert "REMIT_URL_PLAIN" not in told
    only = grant({**detail, "resource": "plain"})
    assert len(provision(only, kept, BUILT_IN, bytes, "/run/remit", servers=True).listeners) == 3
