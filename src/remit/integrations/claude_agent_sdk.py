"""Claude Agent SDK: a grant for the session, and one for each type of sub-agent in it.

Claude is a process of its own: what a hook sets in ours does not reach it. So a sub-agent's commands are rewritten to
name its grant, and tools in our process enter it by the id of the call. Claude goes on when a hook fails: every error
is a denial here. The models of all sub-agents are called by the one process, under the session's grant.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Unpack

from claude_agent_sdk import HookMatcher, SdkMcpTool, create_sdk_mcp_server

from remit import integrations
from remit.errors import DeniedError
from remit.sdk.detail import Wishes
from remit.sdk.verbs import BoundsOptions

SESSION = "session"  # the member that is no sub-agent
_CALL = "claudecode/toolUseId"


@dataclass
class _Session:
    """Who called what: hooks learn it before the call comes."""

    grants: integrations.Team
    servers: frozenset[str]
    callers: dict[str, str] = field(default_factory=dict)  # agents, by the id of a call of a tool in our process

    async def before_tool(self, call: Any, _use: str | None, _context: Any) -> dict[str, Any]:
        """Decide on one call of a tool: by whom, and under which grant."""
        decided: dict[str, Any]
        try:
            decided = {"updatedInput": self._under(call)}
        except Exception as error:  # noqa: BLE001 - any error has to deny: Claude goes on otherwise
            decided = {"permissionDecision": "deny", "permissionDecisionReason": str(error)}
        return {"hookSpecificOutput": {"hookEventName": "PreToolUse", **decided}}

    def _under(self, call: Any) -> dict[str, Any]:
        """Return the input of a call with the caller's grant in it, or raise."""
        agent = call["agent_type"] if call.get("agent_id") else SESSION
        variables = self.grants.of(agent).environ()
        told, (kind, _, rest) = dict(call["tool_input"]), call["tool_name"].partition("__")
        if kind == "Bash":
            exports = " ".join(f"{name}={shlex.quote(value)}" for name, value in variables.items())
            told["command"] = f"export {exports}\n{told['command']}"
        elif kind in {"Agent", "Task"}:
            self.grants.of(str(told.get("subagent_type")))
        elif kind == "mcp" and rest.partition("__")[0] in self.servers:
            self.callers[call["tool_use_id"]] = agent
        elif kind == "mcp" and agent != SESSION:
            raise DeniedError(f"`{call['tool_name']}` is a server under the session's grant, not under this agent's")
        return told

    async def entered(self, request: Any, call_next: Any) -> Any:
        """Enter the caller's grant for a call of a tool in our process: a middleware of its server."""
        if request.method == "tools/call":
            self.grants.enter(self.callers.pop(str((request.meta or {}).get(_CALL)), None))
        return await call_next(request)


@contextmanager
def team(
    members: Mapping[str, Wishes],
    *,
    tools: Mapping[str, Sequence[SdkMcpTool[Any]]] | None = None,
    **bounds: Unpack[BoundsOptions],
) -> Iterator[dict[str, Any]]:
    """Return options of ``ClaudeAgentOptions`` under which each agent works under a grant of its own. In a run.

    ``members`` has what the session gets, as `session`, and each type of sub-agent; another is refused. ``tools`` are
    those of this process, by the name of their server; add other servers to the `mcp_servers` that this gives.
    """
    with integrations.team(members, **bounds) as grants:
        session = _Session(grants, frozenset(tools or ()))
        servers = {name: create_sdk_mcp_server(name, tools=list(found)) for name, found in (tools or {}).items()}
        for server in servers.values():
            server["instance"].middleware.append(session.entered)
        hooks = {"PreToolUse": [HookMatcher(hooks=[session.before_tool])]}
        yield {"hooks": hooks, "env": grants.of(SESSION).environ(), "mcp_servers": servers}
