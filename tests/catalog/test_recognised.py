"""Whose a key is: by its name and its look, and never by one against the other."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit import catalog
from remit.catalog.recognised import by_shape, by_variable, recognise, shown

PROVIDERS = catalog.load()
OPENAI = catalog.placeholder(PROVIDERS["openai"], b"x" * 16)
GITHUB = catalog.placeholder(PROVIDERS["github"], b"x" * 16)


@pytest.mark.parametrize("name", [name for name, each in PROVIDERS.items() if each.variables])
@given(random=st.binary(min_size=16, max_size=16))
def test_a_key_in_a_variable_of_its_provider_is_its_providers(name: str, random: bytes) -> None:
    provider = PROVIDERS[name]
    found = recognise(provider.variables[0], catalog.placeholder(provider, random))
    assert found is not None
    movable = provider.destination is not None and "{user}" not in provider.key.format
    assert (found.provider == provider, bool(found.why)) == (movable, not movable)


@given(st.binary(min_size=16, max_size=16))
def test_no_look_says_more_than_one_provider_whose_clients_read_variables(random: bytes) -> None:
    for provider in PROVIDERS.values():
        alike = by_shape(catalog.placeholder(provider, random))
        assert not alike or provider in alike
        others = {each.name for each in alike if each.variables} - {"gemini", "google-maps"}  # one console has both
        assert len(others) <= 1


@pytest.mark.parametrize(
    ("variable", "value", "provider"),
    [
        ("OPENAI_API_KEY", "sk-" + "aB3d" * 12, "openai"),
        ("GITHUB_TOKEN", "github_pat_" + "aB3d" * 12, "github"),
        ("MY_LLM", OPENAI, "openai"),
        ("VITE_OPENAI_API_KEY", OPENAI, "openai"),
        ("MY_TOKEN", GITHUB, "github"),
        ("EXA_API_KEY", "0123abcd-0123-4567-89ab-0123456789ab", "exa"),
    ],
)
def test_a_key_is_known_by_its_name_or_by_its_look(variable: str, value: str, provider: str) -> None:
    found = recognise(variable, value)
    assert found is not None
    assert found.provider == PROVIDERS[provider]


@pytest.mark.attack("LAU-17")
@pytest.mark.parametrize(
    ("variable", "value", "why"),
    [
        ("FIRECRAWL_API_KEY", OPENAI, "its name says firecrawl, and it looks like a key of openai"),
        ("OPENAI_API_KEY", GITHUB, "looks like a key of github"),
        ("MAPS", catalog.placeholder(PROVIDERS["gemini"], b"x" * 16), "google-maps or gemini"),
        ("AZURE_OPENAI_API_KEY", "0123456789abcdef" * 2, "a host of your own"),
        ("JIRA_API_TOKEN", "ATATT3xFfGF0" + "aB3d" * 43, "a host of your own"),
        ("INTERNAL_API_TOKEN", "0123456789abcdef", "looks like a secret"),
        ("DATABASE_URL", "postgresql://me:secret@db.internal/shop", "a URL with a password"),
        ("OPENAI_API_KEY", "a key with blanks in it", "no key of an API"),
        ("OPENAI_API_KEY", "sk-short", "no key of an API"),
    ],
)
def test_what_is_doubtful_goes_nowhere_and_says_why(variable: str, value: str, why: str) -> None:
    found = recognise(variable, value)
    assert found is not None
    assert (found.provider, why in found.why) == (None, True), found.why


@pytest.mark.parametrize(
    "value",
    [
        "",
        "${OPENAI_API_KEY}",
        "$OPENAI_API_KEY",
        "<your key>",
        "your-api-key-goes-here",
        "{{ secrets.KEY }}",
        "changeme",
        *(
            "sk-xxxxxxxxxxxxxxxxxxxxxxxx",
            "op://vault/openai/key",
            "placeholder:openai",
            "********",
            "sk-...",
            "`pass x`",
        ),
        *(
            "`pass x`",
            "%OPENAI_API_KEY%",
            "sk-proj-example-example-example",
            "$(pass show openai)",
            "${input:key}",
            "x" * 5_000,
        ),
    ],
)
def test_what_stands_in_for_a_key_is_none(value: str) -> None:
    assert recognise("OPENAI_API_KEY", value) is None


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        *(("LOG_LEVEL", "debug-is-very-long"), ("SECRET_KEY", "short"), ("NEXT_PUBLIC_KEY", "0123456789abcdef")),
        *(("DATABASE_URL", "postgresql://db.internal/shop"), ("TOKEN_URL", "https://idp.internal/token")),
        ("A", "http://["),
    ],
)
def test_what_is_no_secret_is_none(variable: str, value: str) -> None:
    assert recognise(variable, value) is None


def test_of_a_key_its_beginning_is_told_where_all_of_its_provider_have_it() -> None:
    assert shown(OPENAI) == f"sk-proj-… ({len(OPENAI)} characters)"
    assert shown("0123456789abcdef") == "… (16 characters)"


def test_a_variable_of_nobody_is_nobodys() -> None:
    assert by_variable("NO_SUCH_KEY") is None
