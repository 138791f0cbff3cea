from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from remit.errors import InvalidRequestError
from remit.run.sandbox import Bind
from remit.run.spec import MANY, LaunchSpec, base_environment, complete, render_exposure

OPERATOR = {
    "PATH": "/usr/bin",
    "LANG": "C.UTF-8",
    "LC_ALL": "C",
    "TERM": "xterm",
    "TZ": "UTC",
    "HOME": "/home/ann",
    "USER": "ann",
    "OPENAI_API_KEY": "sk-canary",
    "LD_PRELOAD": "/p/evil.so",
    "PYTHONPATH": "/p/evil",
    "SSH_AUTH_SOCK": "/p/agent",
}
EMPTY = "holds credentials and is empty in this run, until that file is replaced"
SPEC = LaunchSpec(("true",), Path("/run/user/1000/remit/control.sock"), {"grant": "grt_1"}, Path("/p"), OPERATOR)


def test_a_clean_environment_has_the_listed_variables_and_no_other() -> None:
    assert base_environment(SPEC).keys() == {"PATH", "LANG", "LC_ALL", "TERM", "TZ", "HOME", "USER"}


def test_the_environment_is_as_clean_without_a_sandbox() -> None:
    assert base_environment(replace(SPEC, unsandboxed=True)).keys() == base_environment(SPEC).keys()


def test_a_variable_is_added_by_name_or_with_a_value() -> None:
    found = base_environment(replace(SPEC, env=("PYTHONPATH", "MODE=a=b", "EMPTY=", "ABSENT")))
    assert (found["PYTHONPATH"], found["MODE"], found["EMPTY"], "ABSENT" in found) == ("/p/evil", "a=b", "", False)


@pytest.mark.parametrize("option", ["", "=x", "A\n=x", "A=x\0y"])
def test_a_malformed_variable_is_refused(option: str) -> None:
    with pytest.raises(InvalidRequestError, match="NAME"):
        base_environment(replace(SPEC, env=(option,)))


def test_a_variable_that_remit_sets_cannot_be_replaced() -> None:
    with pytest.raises(InvalidRequestError, match="OPENAI_API_KEY"):
        complete({}, {"OPENAI_API_KEY": "placeholder"}, ("OPENAI_API_KEY=sk-real",))


def test_what_remit_gives_wins_over_what_was_inherited() -> None:
    assert complete({"A": "theirs"}, {"A": "ours"}, ()) == {"A": "ours"}


@pytest.mark.parametrize("home", ["", "/", "relative"])
def test_a_home_that_is_none_is_replaced(home: str) -> None:
    assert replace(SPEC, environ={**OPERATOR, "HOME": home}).home == Path("/home/run")


@pytest.mark.parametrize("user", ["", "root"])
def test_root_is_called_by_another_name(user: str) -> None:
    assert base_environment(replace(SPEC, environ={**OPERATOR, "USER": user}))["USER"] == "agent"


def test_a_run_without_a_path_gets_the_usual_one() -> None:
    assert base_environment(replace(SPEC, environ={}))["PATH"] == "/usr/local/bin:/usr/bin:/bin"


def test_the_posture_says_what_was_asked_for() -> None:
    shapes = [SPEC, replace(SPEC, host_net=True), replace(SPEC, unsandboxed=True, host_net=True)]
    assert [spec.isolation for spec in shapes] == ["namespace", "host-net", "unsandboxed"]


def test_runs_may_be_launched_inside_where_that_was_asked_for_or_the_grant_may_have_children() -> None:
    asked: list[dict[str, object]] = [{"grant": "grt_1"}, {"open": {"depth": 0}}, {"delegate": {"ttl": 5}}]
    assert not any(replace(SPEC, request=request).nests for request in asked)
    assert all(replace(SPEC, request=request, nest=True).nests for request in asked)
    assert all(replace(SPEC, request={verb: {"depth": 1}}).nests for verb in ("open", "delegate"))


def test_the_usual_run_exposes_nothing_worth_a_line() -> None:
    assert render_exposure(SPEC) == []


def test_a_shared_network_is_said_to_be_shared() -> None:
    assert "any user" in "\n".join(render_exposure(replace(SPEC, host_net=True)))


def test_a_run_without_a_sandbox_says_both() -> None:
    said = "\n".join(render_exposure(replace(SPEC, unsandboxed=True)))
    assert "runs as you" in said
    assert "any user" in said


def test_writable_folders_and_masked_files_are_named() -> None:
    binds = (Bind(PurePosixPath("/data"), writable=True), Bind(PurePosixPath("/more")))
    said = render_exposure(replace(SPEC, binds=binds, masked=(Path("/p/.env"),)))
    assert said == ["note: the command can write to /data", f"note: /p/.env {EMPTY}"]


def test_files_that_stay_readable_are_named_as_such() -> None:
    said = render_exposure(replace(SPEC, unsandboxed=True, masked=(Path("/home/ann/.netrc"),)))
    assert said[-1] == "warning: it can read /home/ann/.netrc"


def test_of_many_masked_files_the_first_are_named_and_the_rest_counted() -> None:
    many = tuple(Path(f"/p/.env.{number}") for number in range(1_200))
    said = render_exposure(replace(SPEC, masked=many))
    assert said[-2:] == [f"note: /p/.env.{MANY - 1} {EMPTY}", f"note: the same is true of {1_200 - MANY} more files"]


def test_of_the_locale_only_its_own_variables_are_passed_on() -> None:
    environ = {"LC_ALL": "C", "LC_CTYPE": "C.UTF-8", "LC_SECRET": "canary", "LC_": "canary", "LC_ALL_KEY": "canary"}
    taken = base_environment(replace(SPEC, environ=environ))
    assert {name: value for name, value in taken.items() if name.startswith("LC_")} == {
        "LC_ALL": "C",
        "LC_CTYPE": "C.UTF-8",
    }
