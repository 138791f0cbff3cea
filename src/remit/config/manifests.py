"""Which providers a project's code uses, by the packages that it names. Pure."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

_NAME = re.compile(r"^\s*([A-Za-z0-9][A-Za-z0-9._-]*)", re.MULTILINE)

# Clients of providers, by how their packages are called in PyPI and npm, in lower case with `-` for `_` and `.`.
PACKAGES: Mapping[str, str] = {
    **dict.fromkeys(("openai", "openai-agents", "langchain-openai", "@ai-sdk/openai", "@langchain/openai"), "openai"),
    **dict.fromkeys(("anthropic", "@anthropic-ai/sdk", "claude-agent-sdk", "langchain-anthropic"), "anthropic"),
    **dict.fromkeys(("@anthropic-ai/claude-agent-sdk", "@ai-sdk/anthropic", "@langchain/anthropic"), "anthropic"),
    **dict.fromkeys(("google-genai", "google-generativeai", "@google/genai", "@google/generative-ai"), "gemini"),
    **dict.fromkeys(("mistralai", "@mistralai/mistralai"), "mistral"),
    **dict.fromkeys(("groq", "groq-sdk"), "groq"),
    **dict.fromkeys(("cohere", "cohere-ai"), "cohere"),
    **dict.fromkeys(("together", "together-ai"), "together"),
    **dict.fromkeys(("huggingface-hub", "@huggingface/inference", "@huggingface/hub"), "huggingface"),
    **dict.fromkeys(("voyageai",), "voyage"),
    **dict.fromkeys(("elevenlabs", "@elevenlabs/elevenlabs-js"), "elevenlabs"),
    **dict.fromkeys(("deepgram-sdk", "@deepgram/sdk"), "deepgram"),
    **dict.fromkeys(("langsmith",), "langsmith"),
    **dict.fromkeys(("replicate",), "replicate"),
    **dict.fromkeys(("pygithub", "@octokit/rest", "@octokit/core", "octokit"), "github"),
    **dict.fromkeys(("python-gitlab", "@gitbeaker/rest"), "gitlab"),
    **dict.fromkeys(("@linear/sdk",), "linear"),
    **dict.fromkeys(("notion-client", "@notionhq/client"), "notion"),
    **dict.fromkeys(("slack-sdk", "slack-bolt", "@slack/web-api", "@slack/bolt"), "slack"),
    **dict.fromkeys(("stripe",), "stripe"),
    **dict.fromkeys(("sendgrid", "@sendgrid/mail"), "sendgrid"),
    **dict.fromkeys(("twilio",), "twilio"),
    **dict.fromkeys(("resend",), "resend"),
    **dict.fromkeys(("tavily-python", "@tavily/core"), "tavily"),
    **dict.fromkeys(("exa-py", "exa-js"), "exa"),
    **dict.fromkeys(("firecrawl-py", "@mendable/firecrawl-js", "firecrawl"), "firecrawl"),
    **dict.fromkeys(("pinecone", "@pinecone-database/pinecone"), "pinecone"),
    **dict.fromkeys(("e2b", "e2b-code-interpreter", "@e2b/code-interpreter"), "e2b"),
}
MANIFEST = re.compile(r"package\.json|pyproject\.toml|requirements[A-Za-z0-9._-]{0,64}\.txt")


def used(name: str, text: str) -> frozenset[str]:
    """Return the providers that a manifest's packages are clients of; none where it cannot be read."""
    try:
        match name:
            case "package.json":
                packages = _of_node(json.loads(text))
            case "pyproject.toml":
                packages = _of_python(tomllib.loads(text))
            case _:
                packages = iter(_NAME.findall(text))
        return frozenset(PACKAGES[key] for each in packages if (key := _plain(each)) in PACKAGES)
    except (ValueError, RecursionError):
        return frozenset()


def _plain(package: str) -> str:
    return re.sub(r"[_.]+", "-", package.lower())


def _of_node(document: Any) -> Iterator[str]:
    for group in ("dependencies", "devDependencies", "optionalDependencies"):
        named = document.get(group) if isinstance(document, dict) else None
        yield from named if isinstance(named, dict) else ()


def _of_python(document: Mapping[str, Any]) -> Iterator[str]:
    project, tool = document.get("project"), document.get("tool")
    groups: list[Any] = []
    if isinstance(project, dict):
        extra = project.get("optional-dependencies")
        groups += [project.get("dependencies"), *(extra.values() if isinstance(extra, dict) else ())]
    poetry = tool.get("poetry") if isinstance(tool, dict) else None
    if isinstance(poetry, dict):
        groups.append(list(poetry.get("dependencies") or ()))
    for group in groups:
        for each in group if isinstance(group, list) else ():
            yield from _NAME.findall(each)[:1] if isinstance(each, str) else ()
