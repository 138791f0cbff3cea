"""Agents of each framework, as they are installed, in a run: sub-agents work under their own grants and no wider."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.frameworks.rig import ROOT, Rig, rigged
from tests.peers import absent

pytestmark = [pytest.mark.live, pytest.mark.slow]

MODEL, FOUND, REFUSED = ("openai", "allow"), ("search", "allow"), ("search", "scope")
ALONE = {"lead": {MODEL}, "research": {MODEL, FOUND, REFUSED}}
BOTH = {"lead": {MODEL}, "research": {MODEL, FOUND, REFUSED}, "browse": {MODEL, FOUND, REFUSED}}


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """Start a broker with a model behind it."""
    with rigged(tmp_path_factory.mktemp("frameworks")) as found:
        yield found


def python(environment: str) -> Path:
    """Return the interpreter of an environment with frameworks, or skip the test."""
    found = ROOT / ".venv-frameworks" / environment / "bin" / "python"
    if not (found.parents[1] / ".installed").exists():
        absent(f"`{found.parents[1].relative_to(ROOT)}`", "say `make frameworks`")
    return found


def call(name: str, **arguments: str) -> str:
    return f"call {name} {json.dumps(arguments)}"


def looks(*paths: str) -> str:
    return "\n".join(call("look", path=path) for path in paths)


def orders(argument: str, **workers: str) -> str:
    """Return what makes a lead call each of its workers with an order, at once."""
    return "\n".join(call(name, **{argument: text}) for name, text in workers.items())


TOOLS = [  # program, how it calls its agents (blocking, async, streaming, which API), its workers, their argument
    ("with_langgraph", "invoke", ("research", "browse"), "work"),
    ("with_langgraph", "ainvoke", ("research_later", "browse_later"), "work"),
    ("with_pydantic_ai", "chat", ("research", "browse"), "work"),
    ("with_pydantic_ai", "responses", ("research", "browse"), "work"),
    ("with_pydantic_ai", "stream", ("research", "browse"), "work"),
    ("with_ag2", "ask", ("research", "browse"), "work"),
    ("with_ag2", "stream", ("research", "browse"), "work"),
    ("with_openai_agents", "chat", ("research", "browse"), "input"),
    ("with_openai_agents", "responses", ("research", "browse"), "input"),
    ("with_openai_agents", "stream", ("research", "browse"), "input"),
]


@pytest.mark.parametrize(("program", "way", "workers", "argument"), TOOLS)
def test_sub_agents_at_once_each_work_under_their_own_grant(
    rig: Rig, program: str, way: str, workers: tuple[str, str], argument: str
) -> None:
    first = looks("/v1/search?meet", "/v1/browse")
    second = looks("/v1/browse?meet", "/v1/search")
    text = orders(argument, **dict(zip(workers, (first, second), strict=True)))
    told = rig.agent(python("openai-3"), program, way, text)
    assert told.answer == "told: told: 200 /v1/search?meet | scope | told: 200 /v1/browse?meet | scope"
    assert sorted(path for path in told.paths if "?" in path or path in {"/v1/search", "/v1/browse"}) == [
        "/v1/browse?meet",
        "/v1/search?meet",
    ]
    assert told.uses == BOTH


PROGRAMS = ["with_langgraph", "with_pydantic_ai", "with_openai_agents", "with_ag2"]
EXCEED = [
    ("with_langgraph", "work"),
    ("with_ag2", "work"),
    ("with_pydantic_ai", "work"),
    ("with_openai_agents", "input"),
]


@pytest.mark.parametrize(("program", "argument"), EXCEED)
def test_a_sub_agent_that_would_get_more_than_its_parent_has_does_not_work(
    rig: Rig, program: str, argument: str
) -> None:
    text = orders(argument, exceed=looks("/v1/search"))
    told = rig.agent(python("openai-3"), program, "responses" if argument == "input" else "invoke", text)
    assert "the request is wider than the grant it comes from" in told.answer
    assert told.uses == {"lead": {MODEL}}
    assert "/v1/search" not in told.paths


@pytest.mark.parametrize("program", PROGRAMS)
def test_an_agent_that_is_forgotten_is_refused(rig: Rig, program: str) -> None:
    told = rig.agent(python("openai-3"), program, "forgot", looks("/v1/search"))
    assert told.answer.startswith("refused:")
    assert "this grant may delegate but not be used itself" in told.answer
    assert (told.paths, told.uses) == ([], {"the run": {("openai", "scope")}})


def test_an_agent_that_is_handed_over_to_works_under_its_own_grant(rig: Rig) -> None:
    text = call("transfer_to_research") + "\n\n" + looks("/v1/search", "/v1/other")
    told = rig.agent(python("openai-3"), "with_openai_agents", "handoff", text)
    assert told.answer == 'told: {"assistant": "research"} | 200 /v1/search | scope'
    assert told.uses == ALONE


def test_an_agent_that_is_handed_over_to_and_has_no_grant_is_refused(rig: Rig) -> None:
    text = call("transfer_to_stranger") + "\n\n" + looks("/v1/search")
    told = rig.agent(python("openai-3"), "with_openai_agents", "handoff", text)
    assert told.answer == "refused: DeniedError the agent `stranger` has no grant"
    assert told.uses == {"lead": {MODEL}}


def test_members_of_a_crew_at_once_each_work_under_their_own_grant(rig: Rig) -> None:
    text = looks("/v1/search?meet", "/v1/browse") + "\n\n" + looks("/v1/browse?meet", "/v1/search")
    told = rig.agent(python("openai-2"), "with_crewai", "both", text)
    assert told.answer == "told: 200 /v1/search?meet | scope / told: 200 /v1/browse?meet | scope"
    assert told.uses == {name: {MODEL, FOUND, REFUSED} for name in ("research", "browse")}


def test_a_coworker_of_a_crew_works_under_its_own_grant_and_the_lead_under_its_own_again(rig: Rig) -> None:
    delegated = call("delegate_work_to_coworker", task=looks("/v1/other"), context="none", coworker="research")
    told = rig.agent(python("openai-2"), "with_crewai", "delegate", f"{delegated}\n\n{looks('/v1/other')}")
    assert told.answer == "told: told: scope | 200 /v1/other"
    assert told.uses == {"lead": {MODEL, FOUND}, "research": {MODEL, REFUSED}}


def test_a_member_of_a_crew_without_a_grant_is_refused(rig: Rig) -> None:
    told = rig.agent(python("openai-2"), "with_crewai", "stranger", looks("/v1/search"))
    assert told.answer == "refused: HookAborted the agent `stranger` has no grant"
    assert (told.paths, told.uses) == ([], {})


def test_a_crew_that_would_get_more_than_there_is_does_not_begin(rig: Rig) -> None:
    told = rig.agent(python("openai-2"), "with_crewai", "exceed", looks("/v1/search"))
    assert told.answer == "refused: AttenuationError the request is wider than the grant it comes from"
    assert (told.paths, told.uses) == ([], {})


def test_a_model_of_a_crew_that_is_forgotten_is_refused(rig: Rig) -> None:
    told = rig.agent(python("openai-2"), "with_crewai", "forgot", looks("/v1/search"))
    assert told.answer.startswith("refused:")
    assert "this grant may delegate but not be used itself" in told.answer
    assert (told.paths, told.uses) == ([], {"the run": {("openai", "scope")}})
