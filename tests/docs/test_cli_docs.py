"""``docs/reference/cli.md`` says what ``--help`` says, and ``sdk.md`` names all that the client has.

After a change of the command line, ``REMIT_WRITE_DOCS=1 make docs`` writes the page anew.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import remit
from remit.cli.app import app
from remit.cli.entry import run
from remit.sdk import verbs

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
HEAD = """# Commands

Exit codes: 0 done, 1 refused or failed (an `error:` line says why, a `help:` line what to do), 2 the command line is
wrong. `remit run` exits with the code of its command. Answers go to stdout, complaints to stderr; `--json` prints one
JSON object (`audit tail --json`: one entry a line). The broker is at `REMIT_SOCKET`, else at
the control socket that it noted in the state; where none serves the state, a command that needs one starts it, and it ends after
five seconds without a task.
`remit --version` says which version this is.

Written from `--help`.
"""


def commands(name: str = "remit", command: Any = None) -> Iterator[tuple[str, Any]]:
    """Return the commands in the order of the help."""
    command = command or typer.main.get_command(app)
    inner = getattr(command, "commands", None)
    if inner is None:
        yield name, command
        return
    for sub, child in inner.items():
        yield from commands(f"{name} {sub}", child)


COMMANDS = dict(commands())


def section(name: str, command: Any) -> str:
    """Return what the page says of a command."""
    said, _, examples = inspect.cleandoc(command.help).partition("\n\b\nExamples:\n")
    rows = "\n".join(row(parameter) for parameter in command.params if parameter.name != "help")
    shell = "\n".join(line.removeprefix("  ") for line in examples.splitlines())
    return f"## {name}\n\n{said.strip()}\n\n| | |\n|---|---|\n{rows}\n\n```sh\n{shell}\n```\n"


def row(parameter: Any) -> str:
    """Return the line of an option or an argument."""
    if parameter.param_type_name == "argument":
        return f"| `{cell(parameter.metavar or parameter.name.upper())}` | {cell(parameter.help)} |"
    names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
    metavar = f" `{cell(parameter.metavar)}`" if parameter.metavar else ""
    default = parameter.default if isinstance(parameter.default, str | int) else None
    plain = default is not None and not isinstance(default, bool) and default not in {"", 0}
    ending = f" Default: {default}." if plain else ""
    env = f" Else `{parameter.envvar}`." if parameter.envvar else ""
    return f"| {names}{metavar} | {cell(parameter.help)}{ending}{env} |"


def cell(text: str) -> str:
    """Return text that a table can hold."""
    return text.replace("|", "\\|")


def page() -> str:
    """Return the whole page."""
    return "\n".join([HEAD, *(section(name, command) for name, command in COMMANDS.items())])


def test_the_page_says_what_the_help_says() -> None:
    path = REFERENCE / "cli.md"
    if os.environ.get("REMIT_WRITE_DOCS") == "1":
        path.write_text(page(), encoding="utf-8")
    assert path.read_text(encoding="utf-8") == page()


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_help_with_examples_of_itself(name: str) -> None:
    said, _, examples = COMMANDS[name].help.partition("Examples:")
    assert said.strip().endswith(("\b", "."))
    assert re.search(rf"(?:^|[\s(]){re.escape(name)}\b", examples)


@pytest.mark.parametrize("name", COMMANDS)
def test_everything_a_command_takes_is_explained(name: str) -> None:
    assert [p.name for p in COMMANDS[name].params if not p.help and p.name != "help"] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_prints_json_but_those_whose_output_is_anothers(name: str) -> None:
    takes = any("--json" in parameter.opts for parameter in COMMANDS[name].params)
    others = {"remit run", "remit mcp start", "remit mcp wrap", "remit mcp serve", "remit completion"}
    assert takes == (name not in others)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_can_be_asked_for(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*name.split()[1:], "--help"]) == 0
    assert "Examples:" in capsys.readouterr().out


# -- the client ------------------------------------------------------------------------------------------------------


def named_in_sdk_page(name: str) -> bool:
    text = (REFERENCE / "sdk.md").read_text(encoding="utf-8")
    return re.search(rf"`(?:remit\.)?(?:\w+\.)?{re.escape(name)}(?:\(|`|:)", text) is not None


def public(kind: type) -> list[str]:
    """Return what a class offers itself, beyond being a context manager."""
    mine = {name for base in kind.__mro__ if base.__module__.startswith("remit.sdk") for name in vars(base)}
    return sorted(name for name in mine if not name.startswith("_"))


@pytest.mark.parametrize("name", remit.__all__)
def test_every_public_name_is_on_the_page(name: str) -> None:
    assert getattr(remit, name)
    assert named_in_sdk_page(name)


@pytest.mark.parametrize("kind", [remit.Client, remit.Grant, remit.Task, remit.Lease, remit.Credential, remit.Report])
def test_everything_a_class_offers_is_on_the_page(kind: type) -> None:
    internal = {"owns", "signer", "binding", "opened", "place"}
    assert [name for name in public(kind) if name not in internal and not named_in_sdk_page(name)] == []


def test_every_conversation_is_on_the_page() -> None:
    flows = [n for n, f in vars(verbs).items() if inspect.isgeneratorfunction(f) and f.__module__ == verbs.__name__]
    assert [name for name in flows if not name.startswith("_") and not named_in_sdk_page(name)] == []


def test_both_colours_offer_the_same() -> None:
    for plain, coloured in ((remit.Client, remit.AsyncClient), (remit.Grant, remit.AsyncGrant)):
        assert public(plain) == public(coloured)
    assert public(remit.Task) == public(remit.AsyncTask)
    assert public(remit.Lease) == public(remit.AsyncLease)
