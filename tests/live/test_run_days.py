"""A run for days, by command: as whoever is logged in at a real issuer, whose refresh token proves it anew."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from remit.sdk import Client, Place, verbs
from tests.live import idp
from tests.live.idp import Provider
from tests.live.terminal import COMMAND, PATIENCE, Terminal, configure

pytestmark = [pytest.mark.live, pytest.mark.timeout(300)]

POLICY = """
@id("all") permit (principal, action, resource);
@id("a-day-at-most")
forbid (principal, action == Action::"open", resource)
when { context.ttl > 86400 };
"""
BOUND = '{"type": "http", "resource": "search", "actions": ["GET"], "paths": ["/v1/**"], "args": "any"}'
REFUSED = [("deny", "invalid-request"), ("deny", "denied")]
KEY = b"sk-search-0123456789ab\n"
EIGHT, MINUTE = timedelta(hours=8), timedelta(minutes=1)


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with idp.served() as found:
        yield found


@contextmanager
def broker(home: Path, issuer: str) -> Iterator[Terminal]:
    """Serve a broker that believes the issuer, with one resource."""
    policies = home / "policies"
    policies.mkdir(mode=0o700)
    (policies / "ours.cedar").write_text(POLICY)
    listens = ["[listen]", 'api = "off"', 'gateway = "off"']
    humans = ["[[humans]]", f'issuer = "{issuer}"', 'client_id = "remit"']
    configure(home, [*listens, *humans, "[policy]", f'directory = "{policies}"'])
    here = Terminal(home, issuer)
    with subprocess.Popen([*COMMAND, "up", "--json"], cwd=home, env=here.environ(), stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline()
            added = [*COMMAND, "resource", "add", "search", "https://search.test", "-b", BOUND, "--secret"]
            subprocess.run(
                added, env=here.environ(), input=b"sk-search-0123456789ab\n", check=True, capture_output=True
            )
            yield here
        finally:
            process.terminate()
            process.wait(PATIENCE)


@contextmanager
def running(here: Terminal, *options: str) -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    """Start a run that lasts until its standard input ends; give its task, and the certificates that it trusts."""
    folder = here.home / "project"
    folder.mkdir(exist_ok=True)
    told = 'cat "$SSL_CERT_FILE" > roots.pem; echo "$REMIT_GRANT" > grant; cat'
    command = [*COMMAND, "run", "--bind", f"{folder}:rw", *options, "-r", "search", "--", "sh", "-c", told]
    with subprocess.Popen(
        command, cwd=folder, env=here.environ(), text=True, stdin=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            while not (folder / "grant").exists() or not (folder / "grant").read_text().endswith("\n"):
                assert process.poll() is None, process.stderr.read() if process.stderr else ""
            grant = (folder / "grant").read_text().strip()
            with Client(Place(here.state / "run" / "control.sock")) as client:
                task = str(client.run(verbs.find(grant))["task"])
            yield process, task, (folder / "roots.pem").read_text()
        finally:
            process.communicate(timeout=PATIENCE)


def shown(here: Terminal, node: str) -> Any:
    return here.told("show", node)


def left(document: Any) -> timedelta:
    return datetime.fromisoformat(document["expires_at"]) - datetime.now(UTC)


def renewals(here: Terminal, task: str) -> list[tuple[str, str | None, str]]:
    """Return what the log says of renewals: decision, code and whose."""
    code, out, err = here.run("audit", "tail", "--all", "--task", task, "--json")
    assert code == 0, err
    entries = [json.loads(line) for line in out.splitlines()]
    return [(each["decision"], each["code"], each["subject"]) for each in entries if each["event"] == "task.renew"]


def runs_own(roots: str) -> x509.Certificate:
    """Return the certificate of the run's own authority, which is the last that it trusts."""
    begins = "-----BEGIN CERTIFICATE-----"
    own = x509.load_pem_x509_certificate((begins + roots.rpartition(begins)[2]).encode())
    assert own.subject.rfc4514_string().startswith("CN=remit run_")
    return own


def test_a_run_for_days_is_renewed_by_new_logins_of_its_human_and_by_nobody_else(
    tmp_path: Path, provider: Provider
) -> None:
    with broker(tmp_path, provider.issuer) as here:
        here.told("login", "--issuer", provider.issuer, "--client-id", "remit")
        with running(here, "--ttl", "7d") as (_, task, roots):
            assert EIGHT - MINUTE < left(shown(here, task)) <= EIGHT
            assert runs_own(roots).not_valid_after_utc - datetime.now(UTC) > timedelta(days=7) - MINUTE

            first = shown(here, task)["expires_at"]
            for _ in range(2):
                assert here.told("renew", task, "--ttl", "8h")["expires_at"] > first
            assert shown(here, task)["subject"]["sub"] == f"{provider.issuer}#alice"

            assert here.run("renew", task, "--ttl", "8h", "--as-owner")[0] == 1
            assert here.run("renew", task, "--ttl", "9h")[0] == 1
            last = shown(here, task)["expires_at"]
            here.told("logout")
            here.login = "bob"
            here.told("login", "--issuer", provider.issuer, "--client-id", "remit")
            code, _, said = here.run("renew", task, "--ttl", "8h")
            assert (code, "by whom it was opened for" in said) == (1, True)
            assert shown(here, task)["expires_at"] == last
        assert shown(here, task)["closed"]
        alice, bob = (f"{provider.issuer}#{name}" for name in ("alice", "bob"))
        told = renewals(here, task)
        assert told[:2] == [("allow", None, alice)] * 2
        assert [(decision, code) for decision, code, _ in told[2:]] == [("deny", "denied"), *REFUSED]
        assert told[-1] == ("deny", "denied", bob)
        assert here.run("audit", "verify")[0] == 0


def test_what_was_begun_with_hours_has_a_certificate_for_hours(tmp_path: Path, provider: Provider) -> None:
    with broker(tmp_path, provider.issuer) as here, running(here, "--ttl", "8h", "--as-owner") as (_, task, roots):
        assert runs_own(roots).not_valid_after_utc - datetime.now(UTC) < EIGHT + timedelta(hours=1) + MINUTE
        assert left(here.told("renew", task, "--ttl", "8h")) > EIGHT - MINUTE
        here.work = here.home / "project"
        code, _, said = here.run("run", "--ttl", "31d", "-r", "search", "--", "true")
        assert (code, "at most 2592000 seconds" in said) == (1, True), said
