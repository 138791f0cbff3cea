"""Which providers a project's packages are clients of."""

from __future__ import annotations

import json

import pytest

from remit import catalog
from remit.config.manifests import MANIFEST, PACKAGES, used

PYPROJECT = """\
[project]
dependencies = ["openai>=3", "Google_GenAI", "rich"]
[project.optional-dependencies]
pay = ["stripe"]
[tool.poetry.dependencies]
python = "^3.11"
slack-sdk = "*"
"""


def test_every_package_is_a_client_of_a_provider_in_the_catalog() -> None:
    assert set(PACKAGES.values()) <= catalog.load().keys()
    assert all(name == name.lower() for name in PACKAGES)


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        (
            "package.json",
            json.dumps({"dependencies": {"openai": "6"}, "devDependencies": {"@octokit/rest": "1"}}),
            "openai github",
        ),
        ("pyproject.toml", PYPROJECT, "openai gemini stripe slack"),
        ("requirements.txt", "# openai\nanthropic==2.13\n -r x\ntavily_python>1\n", "anthropic tavily"),
        ("requirements-dev.txt", "exa-py\n", "exa"),
        ("package.json", "{", ""),
        ("package.json", "[" * 100_000, ""),
        ("package.json", '{"dependencies": [1]}', ""),
        ("pyproject.toml", "a =", ""),
        ("pyproject.toml", "project = 1\ntool = {poetry = 1}\n", ""),
        ("pyproject.toml", "[project]\ndependencies = [1]\noptional-dependencies = 1\n", ""),
    ],
)
def test_the_packages_of_a_manifest_tell_which(name: str, text: str, found: str) -> None:
    assert MANIFEST.fullmatch(name)
    assert used(name, text) == set(found.split())
