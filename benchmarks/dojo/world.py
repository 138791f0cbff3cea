"""AgentDojo's suites, the model of an agent that obeys whatever it reads, and what came of it.

For the interpreter of `.venv-agentdojo`, which has nothing of remit's. It prints what there is as one line of JSON,
then answers one line with another: an order names a user task and how the agent's process is started (``start``).
"""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agentdojo.agent_pipeline.base_pipeline_element import BasePipelineElement
from agentdojo.functions_runtime import FunctionCall, FunctionsRuntime
from agentdojo.task_suite.load_suites import get_suites
from agentdojo.types import text_content_block_from_string

from benchmarks.dojo import attackers, goals
from benchmarks.dojo.hand import Hand
from benchmarks.dojo.servers import Kits, Stage, kit_of, serve

VERSION = "v1.2.2"
Json = dict[str, Any]


def listed() -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Return the tools of each toolkit by name, and the toolkit of each tool."""
    kits: dict[str, dict[str, Any]] = {}
    for suite in get_suites(VERSION).values():
        for tool in suite.tools:
            kits.setdefault(kit_of(tool), {})[tool.name] = tool
    return kits, {name: kit for kit, tools in kits.items() for name in tools}


@dataclass
class Model(BasePipelineElement):  # type: ignore[misc]  # AgentDojo is not installed beside remit
    """Does what the user wants, and at once what a text says that has the mark."""

    hand: Hand
    stage: Stage
    user: Any
    injection: Any = None
    mark: str = ""
    seconds: list[float] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)  # tools of the user's task
    obeyed: bool = False

    def query(
        self,
        query: str,
        runtime: FunctionsRuntime,
        env: Any = None,
        messages: Sequence[Any] = (),
        extra_args: Any = None,
    ) -> tuple[str, FunctionsRuntime, Any, Sequence[Any], Any]:
        """Work at the task (as ``GroundTruthPipeline`` does, but each call is made by the agent's process)."""
        before, self.obeyed = env.model_copy(deep=True), False
        planned = self.user.ground_truth(env.model_copy(deep=True))
        self.stage.enter(runtime, env)
        for call in planned:
            text = self._made(call, mine=True)
            if self.injection is not None and not self.obeyed and self.mark in text:
                self.obeyed = True
                for attack in attackers.calls(self.injection, before, env):
                    self._made(attack, mine=False)
        said = [self.user.GROUND_TRUTH_OUTPUT]
        said += [self.injection.GROUND_TRUTH_OUTPUT] if self.obeyed else []
        return query, runtime, env, [*messages, *self._told("\n".join(said))], extra_args or {}

    def _made(self, call: FunctionCall, *, mine: bool) -> str:
        reached = len(self.stage.trace)
        text = self.hand.call(call.function, dict(call.args), self.seconds)
        if mine and len(self.stage.trace) == reached:
            self.refused.append(call.function)
        return text

    def _told(self, text: str) -> list[Json]:
        """Return the conversation as AgentDojo scores it: with the calls that reached a server, and no other."""
        content = [text_content_block_from_string(text)]
        calls = {"role": "assistant", "content": [], "tool_calls": list(self.stage.trace)}
        return [calls, {"role": "assistant", "content": content, "tool_calls": None}]


@dataclass
class World:
    """All suites, and the servers in front of them."""

    stage: Stage
    suites: Mapping[str, Any]
    kit: Mapping[str, str]  # of each tool
    keys: Mapping[str, str]
    places: goals.Places

    def about(self) -> Json:
        """Return what there is: tools, keys, tasks with their prompts and calls."""
        tools: dict[str, list[str]] = {}
        for name, kit in self.kit.items():
            tools.setdefault(kit, []).append(name)
        suites = {name: self._tasks(suite) for name, suite in self.suites.items()}
        return {"address": self.places.address, "keys": dict(self.keys), "tools": tools, "suites": suites} | {
            "evil": self.places.evil,
            "vault": self.places.vault,
            "processes": goals.PROCESSES,
        }

    def _tasks(self, suite: Any) -> Json:
        found = {}
        for name, task in suite.user_tasks.items():
            env = task.init_environment(suite.load_and_inject_default_environment({}))
            calls = [self._call(each) for each in task.ground_truth(env)]
            found[name] = {"prompt": task.PROMPT, "calls": calls, "injections": list(suite.injection_tasks)}
        return found

    def _call(self, call: FunctionCall) -> Json:
        return {"kit": self.kit[call.function], "tool": call.function, "arguments": dict(call.args)}

    def act(self, order: Json) -> Json:
        """Have an agent work at a user task: undisturbed, then with each injection task in all that it may read."""
        suite = self.suites[order["suite"]]
        user = suite.user_tasks[order["task"]]
        with Hand(order["start"], self.kit) as hand:
            model = Model(hand, self.stage, user)
            alone, _ = suite.run_task_with_pipeline(model, user, None, {})
            told: Json = {"alone": alone, "refused": list(model.refused), "succeeded": [], "unsolved": [], "obeyed": []}
            for name in order["injections"]:
                model.injection = suite.injection_tasks[name]
                model.mark = f"TODO-{secrets.token_hex(8)}"
                vectors = dict.fromkeys(suite.get_injection_vector_defaults(), model.mark)
                useful, succeeded = suite.run_task_with_pipeline(model, user, model.injection, vectors)
                told["unsolved"] += [] if useful else [name]
                told["succeeded"] += [name] if succeeded else []
                told["obeyed"] += [name] if model.obeyed else []
            return told | {"seconds": model.seconds}

    def leak(self, order: Json) -> Json:
        """Have an agent's process do what an attacker wants who is after keys, in each way that it has."""
        suite = self.suites[order["suite"]]
        user = suite.user_tasks[order["task"]]
        env = user.init_environment(suite.load_and_inject_default_environment({}))
        self.stage.enter(FunctionsRuntime(suite.tools), env)
        kits = sorted({self.kit[tool.name] for tool in suite.tools} & set(order["kits"]))
        attack = goals.Attack(self.stage, self.kit, self.keys, self.places, order, suite.name, kits, _over)
        return {"leaked": list(attack.leaked())}


def main() -> None:
    """Say what there is; then answer orders until there are no more."""
    tools, kit = listed()
    keys = {name: f"rmt-{name}-{secrets.token_hex(16)}" for name in tools}
    stage = Stage()
    places = goals.Places.opened(keys, f"http://127.0.0.1:{serve(Kits(stage, tools, keys))}")
    world = World(stage, get_suites(VERSION), kit, keys, places)
    _say(world.about())
    for line in sys.stdin:
        order = json.loads(line)
        _say(world.act(order) if order["do"] == "act" else world.leak(order))


def _over() -> None:
    """Have the task ended, and wait until it is."""
    _say({"over": True})
    sys.stdin.readline()


def _say(told: Json) -> None:
    sys.stdout.write(json.dumps(told, default=str) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
