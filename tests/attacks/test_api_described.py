from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
import schemathesis.checks
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, multiple, rule, run_state_machine_as_test
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS
from schemathesis.core import NOT_SET
from schemathesis.core.failures import Failure, FailureGroup

from remit.compose.app import routes
from tests.attacks.described import SPEC, Served, served, session, whole
from tests.broker.world import SEARCH, TABLE
from tests.oauth.plane import Plane, access, opening, play

# Every run walks some, drawn anew; REMIT_API_CASES=50000 walks as many as the gallery asks for, in about five minutes.
CASES = int(os.environ.get("REMIT_API_CASES", "5000"))
STATEFUL_RUNS = max(CASES // 100, 1)  # of at most 50 calls

schemathesis.checks.load_all_checks()
schemathesis.serializer.alias("application/secevent+jwt", "text/plain")
ANSWERS: list[Any] = [
    CHECKS.get_one(name)
    for name in (
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_headers_conformance",
        "response_schema_conformance",
    )
]

SCHEMA = schemathesis.openapi.from_dict(SPEC)
OPERATIONS: dict[str, Any] = {found.ok().label: found.ok() for found in SCHEMA.get_all_operations()}  # type: ignore[union-attr]  # ours
DRAWN = settings(
    max_examples=max(CASES // (3 * len(OPERATIONS)), 1),
    deadline=None,
    database=None,
    derandomize=False,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("described")) as found:
        yield found


def plain(path: str) -> str:
    """Return a route's path as descriptions write it, which know no parameter of several segments."""
    return path.replace(":path}", "}")


def test_the_description_has_every_route_and_who_may_call_it_and_nothing_else(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        table = {(plain(row.path), row.method.lower()): access(row) for row in routes(whole(plane))}
        described = {
            (path, method): operation["x-remit-who"]
            for path, item in SPEC["paths"].items()
            for method, operation in item.items()
        }
        assert described == table
        bare = {(plain(row.path), row.method.lower()) for row in routes(plane.deps)}
        when = {key for key in described if "x-remit-when" in SPEC["paths"][key[0]][key[1]]}
        assert described.keys() - when == bare

    play(tmp_path, scene)


def _as(speaker: str, here: Served) -> str:
    return {"operator": here.operator, "agent": here.agent, "stranger": here.stranger}[speaker]


@pytest.mark.slow
@pytest.mark.attack("API-03")
@pytest.mark.timeout(900)
@pytest.mark.parametrize("speaker", ["operator", "agent", "stranger"])
@pytest.mark.parametrize("label", OPERATIONS)
def test_generated_calls_get_only_answers_that_are_described(here: Served, label: str, speaker: str) -> None:
    operation, web = OPERATIONS[label], session()
    modes = [GenerationMode.POSITIVE, GenerationMode.NEGATIVE]
    cases = st.one_of([operation.as_strategy(generation_mode=mode) for mode in modes])

    @DRAWN
    @given(case=cases, living=st.booleans(), detail=st.sampled_from([TABLE, SEARCH]))
    def walk(case: Any, *, living: bool, detail: dict[str, object]) -> None:
        if living:
            _enliven(case, here.run(here.live()), detail)
        answer = case.call(base_url=_as(speaker, here), session=web)
        case.validate_response(answer, checks=ANSWERS)

    with web:
        _told(walk)


def _enliven(case: Any, live: dict[str, str], detail: dict[str, object]) -> None:
    """Let a call name what is there, so that it gets further than to not finding it."""
    case.path_parameters.update({name: live[name] for name in case.path_parameters if name in live})
    if isinstance(case.body, dict):
        named = {"grant": live["grant"], "parent": live["grant"], "detail": detail, "authorization_details": [detail]}
        is_form = case.media_type != "application/json"
        case.body.update({name: named[name] for name in case.body if name in named and not is_form})


def _told(walk: Any) -> None:
    """Run, and tell a failure as one: what Schemathesis raises is a group, with the call as a curl command."""
    try:
        walk()
    except (Failure, FailureGroup) as found:
        pytest.fail(str(found))


class Sequences(RuleBasedStateMachine):
    """Calls in any order: what was made is found, what has ended stays ended, and every answer is described."""

    here: Served
    web: Any
    grants: Bundle[tuple[str, str]] = Bundle("grants")  # task and grant
    leases: Bundle[tuple[str, str, str]] = Bundle("leases")  # task, grant and lease

    def __init__(self) -> None:
        super().__init__()
        self.ended: set[str] = set()

    def call(self, label: str, body: Any = None, form: Any = None, **names: str) -> Any:
        """Make one call and hold its answer to the description; return it."""
        operation = OPERATIONS[label]
        kind = "application/x-www-form-urlencoded" if form else "application/json"
        asked = NOT_SET if body is None and form is None else form or body
        case = operation.Case(path_parameters=names, body=asked, media_type=None if asked is NOT_SET else kind)
        answer = case.call(base_url=self.here.operator, session=self.web)
        case.validate_response(answer, checks=ANSWERS)
        return answer

    @rule(target=grants)
    def open(self) -> tuple[str, str]:
        answer = self.call("POST /oauth/token", form=opening())
        assert answer.status_code == 200
        return answer.json()["task"], answer.json()["grant"]

    @rule(target=leases, made=grants)
    def issue(self, made: tuple[str, str]) -> Any:
        task, grant = made
        answer = self.call("POST /v1/tasks/{task}/leases", {"grant": grant, "detail": TABLE}, task=task)
        assert (answer.status_code == 201) is (grant not in self.ended)
        return (task, grant, answer.json()["lease"]) if answer.status_code == 201 else multiple()

    @rule(lease=leases, ttl=st.integers(1, 600))
    def renew(self, lease: tuple[str, str, str], ttl: int) -> None:
        answer = self.call("POST /v1/leases/{lease}/renew", {"ttl": ttl}, lease=lease[2])
        assert (answer.status_code == 200) is (not self.ended & set(lease))

    @rule(lease=leases)
    def revoke_lease(self, lease: tuple[str, str, str]) -> None:
        assert self.call("POST /v1/leases/{lease}/revoke", lease=lease[2]).status_code == 200
        self.ended.add(lease[2])

    @rule(made=grants)
    def revoke(self, made: tuple[str, str]) -> None:
        names = {"task": made[0], "grant": made[1]}
        assert self.call("POST /v1/tasks/{task}/grants/{grant}/revoke", **names).status_code == 200
        self.ended.add(made[1])

    @rule(made=grants)
    def close(self, made: tuple[str, str]) -> None:
        assert self.call("POST /v1/tasks/{task}/close", task=made[0]).status_code == 200
        self.ended.add(made[1])

    @rule(made=grants)
    def look(self, made: tuple[str, str]) -> None:
        shown = self.call("GET /v1/tasks/{task}", task=made[0]).json()
        assert shown["grants"][0]["revoked"] is (made[1] in self.ended)
        over = made[1] in self.ended
        assert not [lease for lease in shown["leases"] if lease["state"] == "active" and over]

    @rule(name=st.sampled_from(["one", "two"]), there=st.booleans())
    def resource(self, *, name: str, there: bool) -> None:
        bound = [{"type": "http", "resource": name, "actions": ["GET"], "paths": ["/**"]}]
        body = {"kind": "http", "destination": "https://up.example", "bound": bound}
        if there:
            assert self.call("PUT /v1/resources/{resource}", body, resource=name).status_code == 200
        else:
            self.call("DELETE /v1/resources/{resource}", resource=name)
        found = self.call("GET /v1/resources/{resource}", resource=name)
        assert found.status_code == (200 if there else 404)


@pytest.mark.slow
@pytest.mark.attack("API-03")
@pytest.mark.timeout(900)
def test_calls_in_any_order_find_what_was_made_and_nothing_that_has_ended(tmp_path: Path) -> None:
    with served(tmp_path) as here, session() as web:
        machine = type("Machine", (Sequences,), {"here": here, "web": web})
        drawn = settings(DRAWN, max_examples=STATEFUL_RUNS, stateful_step_count=50, phases=[Phase.generate])
        _told(lambda: run_state_machine_as_test(machine, settings=drawn))
