from __future__ import annotations

from pathlib import Path

import pytest

from remit.compose import wiring
from remit.config import settings
from remit.config.sections import unknown
from remit.config.settings import line_of, located
from remit.errors import InvalidRequestError, UnavailableError

TEXT = """listen = 3
[audit]
witness = "/second"

[[humans]]
issuer = "https://a.test"
scops = ["openid"]
[[humans]]
issuer = "https://b.test"
[tls]
"names" = []
"""


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("listen", 1),
        ("audit", 2),
        ("audit.witness", 3),
        ("humans.scops", 7),
        ("humans.issuer", None),  # of two it is not told which
        ("humans", None),
        ("tls.names", 11),
        ("tls.witness", None),
        ("keys.kek", None),
    ],
)
def test_a_setting_is_found_by_its_line_where_there_is_just_one(name: str, line: int | None) -> None:
    assert line_of(TEXT, name) == line


def test_the_nearest_name_is_offered_or_all_there_are() -> None:
    assert unknown("humans.scops", {"scopes", "issuer"}).help == "did you mean `humans.scopes`?"
    assert unknown("humans.x", {"scopes", "issuer"}).help == "there are `humans.issuer`, `humans.scopes`"
    assert unknown("polcy", {"policy", "tls"}, "a section").help == "did you mean `policy`?"


def test_a_refusal_that_names_no_setting_is_left_as_it_is(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(TEXT)
    for error in (InvalidRequestError("a key is twice"), UnavailableError("`tls.names` is away")):
        with pytest.raises(type(error)) as refusal, located(config):
            raise error
        assert refusal.value is error


def test_without_a_file_there_is_none_to_name(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError) as refusal, located(tmp_path / "none"):
        raise InvalidRequestError("`tls.names` is empty")
    assert refusal.value.detail == "`tls.names` is empty"


ROW = '[[humans]]\nissuer = "https://a.test"\nclient_id = "remit"\n'


@pytest.mark.parametrize(
    ("text", "line", "help_"),
    [
        ("[lisen]\n", 1, "did you mean `listen`?"),
        ("[listen]\nap = 1\n", 2, "did you mean `listen.api`?"),
        ("[[human]]\n", 1, "did you mean `humans`?"),
        (f'{ROW}scope = ["openid"]\n', 4, "did you mean `humans.scopes`?"),
        ('[[workloads]]\nissuer = "https://a.test"\nmatches = {}\n', 3, "did you mean `workloads.match`?"),
        ('[[trust_domains]]\nname = "prod.test"\nallows = []\n', 3, "did you mean `trust_domains.allow`?"),
        ('[[clients]]\nid = "app"\nredirect_uri = []\n', 3, "did you mean `clients.redirect_uris`?"),
        ("[client_documents]\nhost = []\n", 2, "did you mean `client_documents.hosts`?"),
        ('[[signals]]\nissuer = "https://a.test"\npol = "x"\n', 3, "did you mean `signals.poll`?"),
        ('[tls]\nlisten = "0.0.0.0:8443"\ncertificat = "/c"\n', 3, "did you mean `tls.certificate`?"),
    ],
)
def test_a_name_that_is_unknown_is_said_with_its_file_and_line_and_what_was_meant(
    tmp_path: Path, text: str, line: int, help_: str
) -> None:
    config = tmp_path / "remit" / "config.toml"
    config.parent.mkdir()
    config.write_text(text)
    environ = {"XDG_CONFIG_HOME": str(tmp_path), "REMIT_STATE_DIR": str(tmp_path / "state")}
    with pytest.raises(InvalidRequestError) as refusal:
        wiring.build(settings.load(environ))
    assert refusal.value.detail.startswith(f"{config}:{line}: `")
    assert refusal.value.help == help_


def test_text_that_is_no_toml_is_said_with_its_file(tmp_path: Path) -> None:
    config = tmp_path / "remit" / "config.toml"
    config.parent.mkdir()
    config.write_text("[tls]\nnames = ]\n")
    with pytest.raises(InvalidRequestError, match=f"`{config}` cannot be read: .*line"):
        settings.load({"XDG_CONFIG_HOME": str(tmp_path)})
