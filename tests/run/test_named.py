from __future__ import annotations

import pytest

from remit.errors import InvalidRequestError
from remit.run import named
from remit.run.named import NamedVariable, read

GIVEN = {"REMIT_URL_OPEN_AI": "http://127.0.0.1:8471/open-ai", "REMIT_KEY_OPEN_AI": "sk-placeholder"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("placeholder:brave", NamedVariable("X", "placeholder", "brave")),
        ("url:openai", NamedVariable("X", "url", "openai")),
        ("url:openai/v1/", NamedVariable("X", "url", "openai", "/v1/")),
        ("lease:warehouse", NamedVariable("X", "lease", "warehouse")),
        ("=debug", NamedVariable("X", "", "debug")),
        ("=", NamedVariable("X", "", "")),
        ("=placeholder:brave", NamedVariable("X", "", "placeholder:brave")),
    ],
)
def test_a_value_says_where_it_comes_from(text: str, expected: NamedVariable) -> None:
    assert read("X", text) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("debug", "", "placeholder:", "placeholder", "secret:brave", "url:", "url:/v1", "placeholder:brave/v1"),
        *("url:openai/v1 x", "url:openai/\x1b[2J", "=a\nb", "=\x1b]0;x\x07", "=\u202e", 3, None, ["=a"]),
    ],
)
def test_a_value_that_cannot_be_read_is_refused_with_the_forms_that_there_are(text: object) -> None:
    with pytest.raises(InvalidRequestError, match=r"`env\.X`") as refusal:
        read("X", text)
    assert "placeholder:" in str(refusal.value.help)


@pytest.mark.attack("LAU-15")
@pytest.mark.parametrize(
    "name",
    [
        *(
            "REMIT_SOCKET",
            "REMIT_GRANT",
            "REMIT_KEY_BRAVE",
            "LD_PRELOAD",
            "LD_LIBRARY_PATH",
            "LD_AUDIT",
            "HOME",
            "USER",
        ),
        *("PATH", "GLIBC_TUNABLES", "GCONV_PATH"),
    ],
)
def test_what_the_launcher_and_the_loader_go_by_is_set_by_no_file(name: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"`env.{name}` cannot be set by a file"):
        read(name, "=x")


@pytest.mark.parametrize("name", ["", "A B", "A=B", "1A", "\x1b[31mA", "A\n", "é", "A" * 129, "A.B", "A\0"])
def test_a_name_is_one_of_a_variable(name: str) -> None:
    with pytest.raises(InvalidRequestError) as refusal:
        read(name, "=x")
    assert refusal.value.detail.isprintable()


@pytest.mark.parametrize(
    ("name", "steers"),
    [
        *((name, True) for name in ("PYTHONPATH", "NODE_OPTIONS", "GIT_SSH_COMMAND", "BASH_ENV", "HTTPS_PROXY")),
        *((name, True) for name in ("https_proxy", "SSL_CERT_FILE", "JAVA_TOOL_OPTIONS", "REQUESTS_CA_BUNDLE")),
        *((name, False) for name in ("OPENAI_BASE_URL", "BRAVE_API_KEY", "LOG_LEVEL", "DATABASE_URL")),
    ],
)
def test_names_that_decide_what_code_runs_are_known(name: str, *, steers: bool) -> None:
    assert read(name, "=x").steers is steers


def test_what_a_run_is_given_has_its_name_and_its_path() -> None:
    asked = [read("KEY", "placeholder:open-ai"), read("BASE", "url:open-ai/v1"), read("ROOT", "url:open-ai")]
    url = GIVEN["REMIT_URL_OPEN_AI"]
    assert named.values(asked, GIVEN) == {"KEY": "sk-placeholder", "BASE": f"{url}/v1", "ROOT": url}


def test_a_resource_without_a_placeholder_is_refused_by_the_name_of_the_variable() -> None:
    with pytest.raises(InvalidRequestError, match="`DB` cannot be set: `warehouse`"):
        named.values([read("DB", "placeholder:warehouse")], GIVEN)


def test_which_of_several_resources_has_a_providers_variables_is_said_unless_somebody_chose() -> None:
    of = ("llm", "second", "third.one")
    both = {"OPENAI_API_KEY": of, "OPENAI_BASE_URL": of, "HF_TOKEN": ("a", "b")}
    [line] = named.doubled(both, {"HF_TOKEN", "OTHER"})
    assert line == (
        "remit: OPENAI_API_KEY and OPENAI_BASE_URL are those of `llm`, which the grant has first; `second` is at "
        "REMIT_URL_SECOND with REMIT_KEY_SECOND, `third.one` at REMIT_URL_THIRD_ONE with REMIT_KEY_THIRD_ONE"
    )
    assert named.doubled(both, both) == named.doubled({}, ()) == []
