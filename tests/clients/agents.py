"""Claude Code, Codex and Gemini CLI as people have them: how each is told of a server, logs in, and is asked."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.clients.scene import CLIENTS, MODULES, NODE, Scene, said
from tests.clients.screen import terminal

CLAUDE = [str(MODULES / "@anthropic-ai/claude-code-linux-x64/claude")]
CODEX = [str(MODULES / ".bin/codex")]
GEMINI = [str(NODE / "node"), str(MODULES / "@google/gemini-cli/bundle/gemini.js")]
OWN_MODEL = 'name="x",env_key="OPENAI_API_KEY",wire_api="responses"'


@dataclass(frozen=True)
class Agent:
    """An agent, in a home of its own. ``tool`` is how its model names a tool; ``store`` where it keeps its tokens."""

    scene: Scene
    home: Path
    command: tuple[str, ...]
    tool: str
    store: str
    lists: str  # what it says of a server that it reached

    @property
    def environ(self) -> Mapping[str, str]:
        return self.scene.environ(self.home)

    def said(self, *words: str) -> str:
        return said([*self.command, *words], self.environ, self.home)[1]

    def add(self, name: str) -> None:
        """Tell it of a server, as its user does."""
        raise NotImplementedError

    def log_in(self, *names: str) -> Sequence[str]:
        """Log in at servers; return what it says of each."""
        raise NotImplementedError

    def ask(self, text: str) -> str:
        """Ask it for something; return all it says."""
        raise NotImplementedError

    def listed(self) -> str:
        """Return what it says of its servers."""
        return self.said("mcp", "list")

    def age(self) -> None:
        """Have its tokens be old by what it keeps of them."""
        path = self.home / self.store
        text = re.sub(r'("expires_?[aA]t": ?)[0-9]+', r"\g<1>1000", path.read_text())
        path.write_text(text)


class Claude(Agent):
    """`claude mcp login` wants a terminal."""

    def add(self, name: str) -> None:
        words = ["--transport", "http", "--client-id", "claude", name, self.scene.url(name)]
        assert "Added" in self.said("mcp", "add", *words)

    def log_in(self, *names: str) -> Sequence[str]:
        told = []
        for name in names:
            with terminal([*self.command, "mcp", "login", name], self.environ, self.home) as screen:
                told.append(screen.until("Authenticated with", "Couldn't complete"))
        return told

    def ask(self, text: str) -> str:
        return self.said("-p", text, "--allowedTools", "mcp__tools", "--model", "claude-test")


class Codex(Agent):
    """`codex mcp add` logs in at once."""

    def add(self, name: str) -> None:
        """Tell it when logging in."""

    def log_in(self, *names: str) -> Sequence[str]:
        own = ["--oauth-client-id", "codex"]
        return [self.said("mcp", "add", name, "--url", self.scene.url(name), *own) for name in names]

    def ask(self, text: str) -> str:
        provider = f'model_providers.x={{{OWN_MODEL},base_url="{self.scene.model.address}/v1"}}'
        told = ["mcp_servers.tools.default_tools_approval_mode=approve", "model_provider=x", "model=m", provider]
        return self.said("exec", "--skip-git-repo-check", *(word for each in told for word in ("-c", each)), text)


class Gemini(Agent):
    """It logs in by `/mcp auth NAME` at its prompt, after a question."""

    def add(self, name: str) -> None:
        path = self.home / ".gemini" / "settings.json"
        path.parent.mkdir(exist_ok=True)
        told = json.loads(path.read_text()) if path.exists() else {"mcpServers": {}}
        told["mcpServers"][name] = {"httpUrl": self.scene.url(name), "oauth": {"enabled": True, "clientId": "gemini"}}
        path.write_text(json.dumps({**told, "security": {"auth": {"selectedType": "gemini-api-key"}}}))

    def log_in(self, *names: str) -> Sequence[str]:
        told = []
        for name in names:
            with terminal([*self.command, "-m", "gemini-test"], self.environ, self.home) as screen:
                screen.until("MCP issues detected")
                screen.type(f"/mcp auth {name}")
                screen.until(f"> /mcp auth {name}")
                told.append(screen.until("uccessfully authenticated", "Failed to authenticate", typing="\r"))
        return told

    def ask(self, text: str) -> str:
        return self.said("-m", "gemini-test", "--yolo", "--allowed-mcp-server-names", "tools", "-p", text)


AGENTS = {
    "claude": (Claude, CLAUDE, "mcp__tools__{}", ".claude/.credentials.json", "tools: {} (HTTP) - ✔ Connected"),
    "codex": (Codex, CODEX, "mcp__tools__{}", ".codex/.credentials.json", "{} - enabled OAuth"),
    "gemini": (Gemini, GEMINI, "mcp_tools_{}", ".gemini/mcp-oauth-tokens.json", "tools: {} (http) - Connected"),
}
assert AGENTS.keys() < CLIENTS.keys()


def agent(name: str, scene: Scene, home: Path) -> Agent:
    """Return an agent with an empty home."""
    kind, command, *rest = AGENTS[name]
    return kind(scene, home, tuple(command), *rest)
