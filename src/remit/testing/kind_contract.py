"""What every ``ports.kind.Kind`` must hold. Its engine has a contract of its own (``engine_contract``).

Run it against yours::

    from remit.testing.kind_contract import CASES, KindUnderTest, kind_contract


    @pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
    def test_my_kind_keeps_the_contract(case):
        kind_contract(case, KindUnderTest(KIND, my_resource, refused=[a_resource_that_could_never_work]))

``resource`` is one that works, with every field of the table in some detail of its ``bound``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from remit.core import scope as scopes
from remit.core.orders import HOSTS
from remit.core.secret import Secret
from remit.errors import InvalidRequestError
from remit.ports import Inspectable, Resource
from remit.ports.kind import EngineContext, GatewayAccess, Kind, PortAccess, PortSession, SocketAccess, TunnelAccess

WORD = re.compile(r"[a-z][a-z0-9-]*")
SCHEME = re.compile(r"[a-z][a-z0-9+-]*")
VARIABLE = re.compile(r"[A-Z][A-Z0-9_]*")
PORT = 15_432


class _NoAuthority:
    """Stands for the broker's trust domain where a kind needs none of its keys."""

    trust_domain = "remit.test"

    def __getattr__(self, name: str) -> Any:
        msg = f"the contract lends no authority, and the kind asks for its `{name}`"
        raise AssertionError(msg)


def _lent() -> EngineContext:
    authority: Any = _NoAuthority()
    return EngineContext(lambda: datetime.now(UTC), lambda size: b"\x07" * size, "https://remit.test", authority)


@dataclass(frozen=True, slots=True)
class KindUnderTest:
    """A kind with what it is tried on."""

    kind: Kind
    resource: Resource
    refused: Sequence[Resource]
    secret: Secret | None = None


Case = Callable[[KindUnderTest], None]


def kind_contract(case: Case, subject: KindUnderTest) -> None:
    """Run one case, the kind's table being known to this process."""
    scopes.register(subject.kind.name, subject.kind.table)
    case(subject)


def it_is_named_and_documented(subject: KindUnderTest) -> None:
    """A name and schemes of lower-case words; a page, and how a destination is written."""
    kind = subject.kind
    assert WORD.fullmatch(kind.name)
    assert all(SCHEME.fullmatch(scheme) for scheme in kind.schemes)
    assert kind.schemes, "an operator tells the kind by the scheme of a destination"
    assert kind.docs
    assert kind.destination.startswith(tuple(f"{scheme}:" for scheme in kind.schemes))
    assert subject.resource.destination.partition(":")[0] in kind.schemes


def its_table_is_known_as_it_is(subject: KindUnderTest) -> None:
    """A second registration changes nothing, and whatever policies see of it fits beside what is there."""
    from remit.policies import model

    scopes.register(subject.kind.name, subject.kind.table)
    assert scopes.TYPES[subject.kind.name] == subject.kind.table
    assert model.declared(scopes.TYPES).count("  actions: ") == 1


def details_are_read_and_written_back(subject: KindUnderTest) -> None:
    """What is written is read as the same detail, of which the bound has every field."""
    bound = subject.resource.bound
    assert bound, "a resource has a bound"
    assert all((detail.type, detail.resource) == (subject.kind.name, subject.resource.name) for detail in bound)
    assert {name for detail in bound for name, _ in detail.fields} == subject.kind.table.keys()
    assert scopes.parse(scopes.dump(bound)) == bound
    schema = scopes.json_schema(subject.kind.name)["properties"]
    assert isinstance(schema, dict)
    assert all(written.keys() <= schema.keys() for written in scopes.dump(bound))


def a_detail_covers_itself_and_nothing_that_says_less(subject: KindUnderTest) -> None:
    """A field that a child leaves out is wider, unless its absence means something."""
    for detail in subject.resource.bound:
        assert scopes.detail_le(detail, detail)
        for name, row in subject.kind.table.items():
            if not row.required and row.default is None and detail.get(name) is not None:
                less = scopes.Detail(detail.type, detail.resource, tuple(f for f in detail.fields if f[0] != name))
                assert scopes.detail_le(detail, less)
                assert not scopes.detail_le(less, detail)


def a_resource_that_works_is_accepted(subject: KindUnderTest) -> None:
    subject.kind.check(subject.resource, None, _lent())
    subject.kind.check(subject.resource, subject.secret, _lent())


def a_resource_that_could_never_work_is_refused(subject: KindUnderTest) -> None:
    """By its check, or by its engine when it is made."""
    assert subject.refused, "say which resources are refused"
    for resource in subject.refused:
        try:
            subject.kind.check(resource, subject.secret, _lent())
            if subject.kind.engine is not None:
                subject.kind.engine(resource, subject.secret, _lent())
        except InvalidRequestError:
            continue
        msg = f"{resource.destination} with {dict(resource.settings)} was accepted"
        raise AssertionError(msg)


def its_engine_is_what_the_kind_says(subject: KindUnderTest) -> None:
    """It can look at its target exactly where the kind says so, and needs no secret where there is none."""
    kind = subject.kind
    assert (kind.plan is None) is (kind.engine is None), "leases are planned apart from the engine that makes them"
    if kind.engine is None:
        assert not kind.inspects
        return
    engine = kind.engine(subject.resource, None if kind.keyless else subject.secret, _lent())
    assert isinstance(engine, Inspectable) is kind.inspects


def a_run_finds_it(subject: KindUnderTest) -> None:
    kind, resource = subject.kind, subject.resource
    match kind.access:
        case GatewayAccess() as access:
            judged = {"tools", "prompts", "resources"} if access.messages else {"paths", "args"}
            assert judged <= kind.table.keys(), "by these the gateway authorizes"
            one, other = (access.placeholder(resource, octet * 32) for octet in (b"\x01", b"\x02"))
            assert one != other
            found = access.variables(resource, f"http://127.0.0.1/{resource.name}", one)
            assert all(VARIABLE.fullmatch(name) for name in found)
        case PortAccess() as access:
            host, port = access.address(resource)
            assert host
            assert all(1 <= each < 65_536 for each in (port, access.port))
            assert {"password": "p"}.items() <= access.local({"password": "p"}, PORT).items()
            _it_reads_who_opens(access.session(resource))
        case TunnelAccess() as access:
            assert kind.table[access.field].order is HOSTS
            host, port, _ = access.place(resource, "a.example")
            assert host
            assert 1 <= port < 65_536
        case SocketAccess() as access:
            assert WORD.fullmatch(access.socket)
            assert VARIABLE.fullmatch(access.variable)
        case None:
            return


def _it_reads_who_opens(session: PortSession) -> None:
    """What is no opening of its protocol is refused, and the client told so; nothing of it goes to the target."""
    assert (session.login, session.cancels, session.key, session.first) == (None, None, None, b"")
    refused = False
    try:
        session.heard(b"\xff" * 65_536)
    except InvalidRequestError:
        refused = True
    assert refused, "65,536 octets of nothing were read"
    assert session.login is None
    assert session.refusal(InvalidRequestError())


CASES: tuple[Case, ...] = (
    it_is_named_and_documented,
    its_table_is_known_as_it_is,
    details_are_read_and_written_back,
    a_detail_covers_itself_and_nothing_that_says_less,
    a_resource_that_works_is_accepted,
    a_resource_that_could_never_work_is_refused,
    its_engine_is_what_the_kind_says,
    a_run_finds_it,
)
