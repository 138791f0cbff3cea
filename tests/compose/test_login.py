from __future__ import annotations

from remit.compose.login import native


def test_an_issuer_with_a_public_client_is_told_without_what_is_the_brokers_own() -> None:
    row = {"issuer": "https://a.test", "client_id": "remit", "groups_claim": "roles", "acr": ["gold"], "id_jag": True}
    assert native({"humans": [row]}) == ({"issuer": "https://a.test", "client_id": "remit", "groups_claim": "roles"},)


def test_an_issuer_whose_client_has_a_secret_is_not_one_for_terminals() -> None:
    assert native({"humans": [{"issuer": "https://a.test", "client_id": "web", "client_secret_file": "/s"}]}) == ()


def test_without_humans_there_is_no_issuer() -> None:
    assert native({}) == ()
    assert native({"humans": "nonsense that its own module refuses"}) == ()
