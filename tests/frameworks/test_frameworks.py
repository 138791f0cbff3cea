"""Agents of each framework, as they are installed, in a run: sub-agents work under their own grants and no wider."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.frameworks.rig import ROOT, Rig, rigged
from tests.integrations.page import records
from tests.peers import absent

pytestmark = [pytest.mark.live, pytest.mark.slow]

MODEL, FOUND, REFUSED = ("openai", "allow"), ("search", "allow"), ("search", "scope")
CLAUDE = "with_claude_agent_sdk"
ELSEWHERE = {"with_crewai": "openai-2", "with_llama_index": "openai-2"}  # programs that need the other environment
MODELS = {"with_google_adk": "gemini", CLAUDE: "anthropic"}  # of those whose model is another


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """Start a broker with a model behind it."""
    with rigged(tmp_path_factory.mktemp("frameworks")) as found:
        yield found


def model(program: str) -> tuple[str, str]:
    return MODELS.get(program, "openai"), "allow"


def python(program: str) -> Path:
    """Return the interpreter of the environment with the framework of a program, or skip the test."""
    found = ROOT / ".venv-frameworks" / ELSEWHERE.get(program, "openai-3") / "bin" / "python"
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


SOFTWARE = {  # its program, and its package
    "AG2": ("with_ag2", "ag2"),
    "Claude Agent SDK": ("with_claude_agent_sdk", "claude-agent-sdk"),
    "CrewAI": ("with_crewai", "crewai"),
    "Google ADK": ("with_google_adk", "google-adk"),
    "LangChain": ("with_langgraph", "langchain"),
    "LangGraph": ("with_langgraph", "langgraph"),
    "LlamaIndex": ("with_llama_index", "llama-index-core"),
    "Microsoft Agent Framework": ("with_agent_framework", "agent-framework-core"),
    "OpenAI Agents SDK": ("with_openai_agents", "openai-agents"),
    "Pydantic AI": ("with_pydantic_ai", "pydantic-ai-slim"),
    "smolagents": ("with_smolagents", "smolagents"),
}


def installed(program: str, package: str) -> str:
    """Return the version of a package that is installed where a program runs."""
    folder = python(program).parents[1] / "lib"
    [found] = folder.glob(f"python3.*/site-packages/{package.replace('-', '_')}-*.dist-info")
    return found.stem.partition("-")[2]


@pytest.mark.parametrize("software", SOFTWARE)
def test_a_program_that_knows_nothing_of_grants_works_under_its_runs(rig: Rig, software: str) -> None:
    program, package = SOFTWARE[software]
    [record] = [one for one in records("framework") if one.software == software]
    assert (record.version, record.verdict) == (installed(program, package), "zero")
    path = "/v1/search"
    order = call("mcp__api__look", path=path) if program == CLAUDE else looks(path)
    told = rig.agent(python(program), program, "forgot", order, exercise=True)
    if program != CLAUDE:
        assert told.answer == f"told: 200 {path}"
    assert told.uses == {"the run": {model(program)} if program == CLAUDE else {model(program), FOUND}}
    assert rig.seen.strangers == 0


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
    ("with_smolagents", "run", ("research", "browse"), "task"),
    ("with_smolagents", "stream", ("research", "browse"), "task"),
    ("with_agent_framework", "chat", ("research", "browse"), "work"),
    ("with_agent_framework", "responses", ("research", "browse"), "work"),
    ("with_agent_framework", "stream", ("research", "browse"), "work"),
    ("with_llama_index", "run", ("research", "browse"), "work"),
    ("with_google_adk", "tools", ("research", "browse"), "request"),
]


@pytest.mark.parametrize(("program", "way", "workers", "argument"), TOOLS)
def test_sub_agents_at_once_each_work_under_their_own_grant(
    rig: Rig, program: str, way: str, workers: tuple[str, str], argument: str
) -> None:
    first = looks("/v1/search?meet", "/v1/browse")
    second = looks("/v1/browse?meet", "/v1/search")
    text = orders(argument, **dict(zip(workers, (first, second), strict=True)))
    told = rig.agent(python(program), program, way, text)
    # LlamaIndex tells what tools told as they are done, the others as they were called.
    answers = sorted(told.answer.replace("told: ", "").split(" | "))
    assert answers == ["200 /v1/browse?meet", "200 /v1/search?meet", "scope", "scope"]
    assert sorted(path for path in told.paths if "?" in path or path in {"/v1/search", "/v1/browse"}) == [
        "/v1/browse?meet",
        "/v1/search?meet",
    ]
    worked = {model(program), FOUND, REFUSED}
    assert told.uses == {"lead": {model(program)}, "research": worked, "browse": worked}


PROGRAMS = ["with_langgraph", "with_pydantic_ai", "with_openai_agents", "with_ag2", "with_smolagents"]
PROGRAMS += ["with_agent_framework", "with_llama_index", "with_google_adk", "with_claude_agent_sdk", "with_crewai"]
EXCEED = [
    ("with_langgraph", "work"),
    ("with_ag2", "work"),
    ("with_pydantic_ai", "work"),
    ("with_openai_agents", "input"),
    ("with_smolagents", "task"),
    ("with_agent_framework", "work"),
    ("with_llama_index", "work"),
]


@pytest.mark.parametrize(("program", "argument"), EXCEED)
def test_a_sub_agent_that_would_get_more_than_its_parent_has_does_not_work(
    rig: Rig, program: str, argument: str
) -> None:
    text = orders(argument, exceed=looks("/v1/search"))
    told = rig.agent(python(program), program, "responses" if argument == "input" else "invoke", text)
    assert "the request is wider than the grant it comes from" in told.answer
    assert told.uses == {"lead": {MODEL}}
    assert "/v1/search" not in told.paths


@pytest.mark.parametrize("program", PROGRAMS)
def test_an_agent_that_is_forgotten_is_refused(rig: Rig, program: str) -> None:
    told = rig.agent(python(program), program, "forgot", looks("/v1/search"))
    assert told.answer.startswith("refused:")
    assert "this grant may delegate but not be used itself" in told.answer
    assert (told.paths, told.uses) == ([], {"the run": {(model(program)[0], "scope")}})


HANDOVER = [  # program, how it hands over, what it is told then
    ("with_openai_agents", ("transfer_to_{}", {}), '{"assistant": "research"}'),
    ("with_google_adk", ("transfer_to_agent", {"agent_name": "{}"}), "handed over"),
    ("with_llama_index", ("handoff", {"to_agent": "{}", "reason": "work"}), "Agent research is now handling"),
]


def handed_over(way: tuple[str, dict[str, str]], agent: str, *paths: str) -> str:
    """Return what makes a lead hand over to another, and that one look."""
    name, arguments = way
    return call(name.format(agent), **{k: v.format(agent) for k, v in arguments.items()}) + "\n\n" + looks(*paths)


@pytest.mark.parametrize(("program", "way", "first"), HANDOVER)
def test_an_agent_that_is_handed_over_to_works_under_its_own_grant(
    rig: Rig, program: str, way: tuple[str, dict[str, str]], first: str
) -> None:
    told = rig.agent(python(program), program, "handoff", handed_over(way, "research", "/v1/search", "/v1/other"))
    assert told.answer.startswith(f"told: {first}")
    assert sorted(told.answer.split(" | ")[1:]) == ["200 /v1/search", "scope"]
    assert told.uses == {"lead": {model(program)}, "research": {model(program), FOUND, REFUSED}}


@pytest.mark.parametrize(("program", "way", "first"), HANDOVER)
def test_an_agent_that_is_handed_over_to_and_has_no_grant_is_refused(
    rig: Rig, program: str, way: tuple[str, dict[str, str]], first: str
) -> None:
    del first
    told = rig.agent(python(program), program, "handoff", handed_over(way, "stranger", "/v1/search"))
    assert told.answer.startswith("refused: ")
    assert told.answer.endswith("the agent `stranger` has no grant")
    assert told.uses == {"lead": {model(program)}}


def test_branches_of_adk_that_work_at_once_do_so_under_their_own_grants(rig: Rig) -> None:
    told = rig.agent(python("with_google_adk"), "with_google_adk", "at once", looks("/v1/search", "/v1/browse"))
    assert told.answer == "told: 200 /v1/search | scope / told: scope | 200 /v1/browse"
    worked = {("gemini", "allow"), FOUND, REFUSED}
    assert told.uses == {"research": worked, "browse": worked}


def sent(agent: str, work: str) -> str:
    """Return what makes Claude have a sub-agent work, and wait for it."""
    return "call Agent " + json.dumps(
        {"description": "work", "subagent_type": agent, "prompt": work, "run_in_background": False}
    )


def claude_looks(*paths: str) -> str:
    return "\n".join(call("mcp__api__look", path=path) for path in paths)


def test_tools_of_claudes_sub_agents_at_once_each_work_under_their_own_grant(rig: Rig) -> None:
    text = sent("research", claude_looks("/v1/search?meet", "/v1/browse")) + "\n"
    text += sent("browse", claude_looks("/v1/browse?meet", "/v1/search"))
    told = rig.agent(python(CLAUDE), CLAUDE, "both", text)
    assert "told: 200 /v1/search?meet | scope" in told.answer
    assert "told: 200 /v1/browse?meet | scope" in told.answer
    model_of_all = {"session": {("anthropic", "allow")}}
    assert told.uses == {**model_of_all, "research": {FOUND, REFUSED}, "browse": {FOUND, REFUSED}}


def test_commands_of_claude_and_its_sub_agent_each_run_under_their_own_grant(rig: Rig) -> None:
    command = (
        "curl -s -o /dev/null -o /dev/null -w '%{http_code} ' $REMIT_URL_SEARCH/v1/search $REMIT_URL_SEARCH/v1/other"
    )
    looked = call("Bash", command=command, description="look")
    told = rig.agent(python(CLAUDE), CLAUDE, "commands", f"{looked}\n\n{sent('research', looked)}")
    assert told.answer.startswith("told: 200 200")
    assert "told: 200 403" in told.answer
    assert told.uses == {"session": {("anthropic", "allow"), FOUND}, "research": {FOUND, REFUSED}}


def test_a_sub_agent_of_claude_without_a_grant_does_not_begin_wherever_it_is_asked_for(rig: Rig) -> None:
    stranger = sent("stranger", claude_looks("/v1/search"))
    told = rig.agent(python(CLAUDE), CLAUDE, "stranger", f"{stranger}\n\n{sent('research', stranger)}")
    assert told.answer.count("the agent `stranger` has no grant") == 2
    assert told.uses == {"session": {("anthropic", "allow")}}


def test_a_server_that_is_not_in_our_process_is_refused_to_a_sub_agent_of_claude(rig: Rig) -> None:
    looked = call("mcp__apart__look", path="/v1/search")
    told = rig.agent(python(CLAUDE), CLAUDE, "apart", f"{looked}\n\n{sent('research', looked)}")
    assert told.answer.startswith("told: 200 /v1/search |")
    assert "`mcp__apart__look` is a server under the session's grant" in told.answer
    assert told.uses == {"session": {("anthropic", "allow"), FOUND}}


def test_members_of_a_crew_at_once_each_work_under_their_own_grant(rig: Rig) -> None:
    text = looks("/v1/search?meet", "/v1/browse") + "\n\n" + looks("/v1/browse?meet", "/v1/search")
    told = rig.agent(python("with_crewai"), "with_crewai", "both", text)
    assert told.answer == "told: 200 /v1/search?meet | scope / told: 200 /v1/browse?meet | scope"
    assert told.uses == {name: {MODEL, FOUND, REFUSED} for name in ("research", "browse")}


def test_a_coworker_of_a_crew_works_under_its_own_grant_and_the_lead_under_its_own_again(rig: Rig) -> None:
    delegated = call("delegate_work_to_coworker", task=looks("/v1/other"), context="none", coworker="research")
    told = rig.agent(python("with_crewai"), "with_crewai", "delegate", f"{delegated}\n\n{looks('/v1/other')}")
    assert told.answer == "told: told: scope | 200 /v1/other"
    assert told.uses == {"lead": {MODEL, FOUND}, "research": {MODEL, REFUSED}}


def test_a_member_of_a_crew_without_a_grant_is_refused(rig: Rig) -> None:
    told = rig.agent(python("with_crewai"), "with_crewai", "stranger", looks("/v1/search"))
    assert told.answer == "refused: HookAborted the agent `stranger` has no grant"
    assert (told.paths, told.uses) == ([], {})


@pytest.mark.parametrize("program", ["with_crewai", "with_google_adk", CLAUDE])
def test_a_team_that_would_get_more_than_there_is_does_not_begin(rig: Rig, program: str) -> None:
    told = rig.agent(python(program), program, "exceed", looks("/v1/search"))
    assert told.answer == "refused: AttenuationError the request is wider than the grant it comes from"
    assert (told.paths, told.uses) == ([], {})
