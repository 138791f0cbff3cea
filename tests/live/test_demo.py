"""The demo, as a newcomer runs it: one JSON object, every number counted by looking."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from examples.demo.attack import ATTEMPTS

pytestmark = [pytest.mark.live, pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def shown() -> dict[str, Any]:
    command = [str(Path(sys.prefix, "bin", "remit")), "demo", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=170)
    assert done.returncode == 0, done.stdout + done.stderr
    read: dict[str, Any] = json.loads(done.stdout)
    return read


def test_with_keys_in_the_environment_every_standing_secret_comes_out(shown: dict[str, Any]) -> None:
    assert shown["baseline"]["secrets_leaked"] == 4


def test_with_keys_in_the_environment_another_process_can_use_them(shown: dict[str, Any]) -> None:
    assert shown["baseline"]["replays_accepted"] == 4


def test_with_keys_in_the_environment_nearly_every_attempt_works(shown: dict[str, Any]) -> None:
    assert shown["baseline"]["attempts_worked"] >= len(ATTEMPTS) - 1


def test_under_remit_every_attempt_was_made_and_none_worked(shown: dict[str, Any]) -> None:
    assert shown["remit"]["by_attempt"] == dict.fromkeys((name for name, _ in ATTEMPTS), False)


def test_under_remit_no_standing_secret_comes_out(shown: dict[str, Any]) -> None:
    assert shown["remit"]["secrets_leaked"] == 0, shown["remit"]["leaks"]


def test_under_remit_nothing_reaches_the_thief_and_no_replay_is_accepted(shown: dict[str, Any]) -> None:
    assert (shown["remit"]["bytes_at_thief"], shown["remit"]["replays_accepted"]) == (0, 0)


def test_under_remit_nothing_is_accepted_after_a_revoke_has_answered(shown: dict[str, Any]) -> None:
    assert shown["remit"]["revoke_state"] == {"researcher": "closed", "analyst": "closed"}
    assert shown["remit"]["accepted_after_revoke"] == 0


def test_under_remit_nothing_is_left_in_the_database(shown: dict[str, Any]) -> None:
    assert (shown["remit"]["orphan_roles"], shown["remit"]["live_sessions"]) == (0, 0)


def test_the_job_is_done_in_both_halves(shown: dict[str, Any]) -> None:
    assert (shown["baseline"]["job_done"], shown["remit"]["job_done"]) == (True, True)


def test_the_tree_holds_the_orchestrator_and_three_unregistered_agents(shown: dict[str, Any]) -> None:
    labels = sorted(grant["label"] for grant in shown["remit"]["task"]["grants"])
    assert labels == ["", "analyst", "researcher", "writer"]
    assert all(not grant["attested"] for grant in shown["remit"]["task"]["grants"])


def test_the_audit_log_verifies_with_its_signature(shown: dict[str, Any]) -> None:
    assert shown["remit"]["audit"]["verified"] is True
    assert shown["remit"]["audit"]["signed"] is True
    assert shown["remit"]["audit"]["signed_entries"] == shown["remit"]["audit"]["entries"] > 0
