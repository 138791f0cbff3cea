"""Providers of the operator's own: read beside the configuration, refused with their line, known to every process."""

from __future__ import annotations

from pathlib import Path

import pytest

from remit import catalog
from remit.catalog.positions import Position
from remit.compose import kinds
from remit.config import settings
from remit.errors import InvalidRequestError

ACME = """# ours
[acme-2]
title = "Acme"
key = { header = "X-Acme-Key" }
shape = "acme_<hex:40>"
"""
OPENAI = """
[openai]
replaces = true
title = "Our gateway"
key = { header = "X-Ours" }
shape = "ours_<hex:40>"
"""


def load(tmp_path: Path, text: str) -> settings.Settings:
    file = tmp_path / "remit/providers.toml"
    file.parent.mkdir()
    file.write_text(text)
    return settings.load({"XDG_CONFIG_HOME": str(tmp_path), "HOME": "/"})


def test_without_a_file_there_are_none(tmp_path: Path) -> None:
    assert settings.load({"HOME": str(tmp_path)}).providers == {}


def test_a_provider_of_ones_own_is_read_and_one_of_remits_is_replaced_as_a_whole(tmp_path: Path) -> None:
    found = load(tmp_path, ACME + OPENAI).providers
    assert found.keys() == {"acme-2", "openai"}
    assert found["acme-2"].key == Position("header", "X-Acme-Key")
    assert (found["openai"].key, found["openai"].mints) == (Position("header", "X-Ours"), ())
    assert catalog.shipped()["openai"].key.name == "Authorization"


def test_each_process_knows_them_by_what_it_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "_known", {})
    read = load(tmp_path, ACME + OPENAI)
    assert "acme-2" not in catalog.load()
    for _ in range(2):
        kinds.known(read)
        assert catalog.provider_of("acme-2").title == "Acme"
        assert catalog.provider_of("openai").title == "Our gateway"
        assert catalog.provider_of("github") is catalog.shipped()["github"]
        assert settings.load({"XDG_CONFIG_HOME": str(tmp_path), "HOME": "/"}).providers == read.providers


WRONG = {
    "a name that there is": (OPENAI.replace("replaces = true\n", ""), ":2: `openai` is a provider"),
    "a name to replace that there is not": (ACME + "replaces = true", ":2: `acme-2` replaces no provider"),
    "replaces, no flag": (ACME + "replaces = 1", ":6: `acme-2.replaces` must be true or false"),
    "an unknown key": (ACME + "secret = 1", ":2: `acme-2`: unknown: `secret`"),
    "a wrong key": (ACME + "hosts = 1", ":6: `acme-2.hosts` must be a list"),
    "a position inside": (ACME.replace("X-Acme-Key", "a b"), ":4: `acme-2.key.header` has an impossible value"),
    "no table": ("acme = 1", ":1: `acme` is not the table of a provider"),
    "no TOML": ("[acme]\ntitle = = 1\n", "line 2"),
}


@pytest.mark.parametrize(("text", "said"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_refused_with_file_and_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        load(tmp_path, text)
    assert said in refused.value.detail
    assert str(tmp_path / "remit/providers.toml") in refused.value.detail
