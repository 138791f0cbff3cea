"""The launcher's part of a run for days: when it asks, by what, and what it says of an end."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from remit.errors import GrantTokenError
from remit.run.renewal import LONGER, Lasting, RunRenewal, announced, patience, why

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def moments(left: timedelta) -> list[timedelta]:
    """Return how long before its end a run with so much time left hears of it."""
    return [NOW + left - moment for moment, _ in announced(NOW + left, NOW, quiet=False)]


def test_a_run_hears_of_its_end_five_minutes_and_one_before_it_and_then() -> None:
    said = [text for _, text in announced(NOW + timedelta(hours=1), NOW, quiet=False)]
    assert moments(timedelta(hours=1)) == [timedelta(minutes=5), timedelta(minutes=1), timedelta(0)]
    assert [text.partition(";")[0] for text in said] == [
        "remit: this run's authority ends in 5 minutes",
        "remit: this run's authority ends in 1 minute",
        "remit: this run's authority has expired",
    ]
    assert "`--ttl`" in LONGER


def test_what_would_be_too_early_for_a_short_run_is_left_out() -> None:
    assert moments(timedelta(minutes=5)) == [timedelta(minutes=1), timedelta(0)]
    assert moments(timedelta(seconds=3)) == [timedelta(0)]


def test_a_quiet_run_hears_nothing() -> None:
    assert announced(NOW + timedelta(hours=1), NOW, quiet=True) == ()


def test_nothing_is_waited_for_once_all_is_said() -> None:
    due = announced(NOW + timedelta(seconds=3), NOW, quiet=False)
    assert patience(due, NOW) == 3.0
    assert patience(due, NOW + timedelta(minutes=1)) == 0.0
    assert patience((), NOW) is None


class Control:
    """A control socket that answers renewals as it is told: by so many seconds, or with a refusal."""

    def __init__(self, path: Path, answers: list[int | str]) -> None:
        self.asked, self.answers = list[tuple[str, dict[str, object]]](), answers
        self.enough = threading.Event()
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.bind(str(path))
        self._sock.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self._sock.accept()
            except OSError:
                return
            with sock:
                self._answer(sock)

    def _answer(self, sock: socket.socket) -> None:
        head, _, body = sock.recv(65_536).partition(b"\r\n\r\n")
        self.asked.append((head.split()[1].decode(), json.loads(body)))
        answer = self.answers.pop(0)
        if isinstance(answer, int):
            status, told = 200, {"expires_at": (datetime.now(UTC) + timedelta(seconds=answer)).isoformat()}
        else:
            status, told = 403, {"code": answer, "detail": f"it is {answer}"}
        sock.sendall(f"HTTP/1.1 {status} X\r\n\r\n".encode() + json.dumps(told).encode())
        if not self.answers:
            self.enough.set()

    def close(self) -> None:
        self._sock.shutdown(socket.SHUT_RDWR)
        self._thread.join(30)
        self._sock.close()


@contextmanager
def asked_for(
    folder: Path, lasting: Lasting, *answers: int | str, left: float = 0.2
) -> Iterator[tuple[Control, RunRenewal]]:
    """Renew a run that ends in so many seconds."""
    control = Control(folder / "control.sock", list(answers))
    renewal = RunRenewal(folder / "control.sock", "task_1", datetime.now(UTC) + timedelta(seconds=left), lasting)
    try:
        yield control, renewal
    finally:
        renewal.end()
        control.close()


def told(renewal: RunRenewal) -> bytes:
    renewal.moved.settimeout(30)
    return renewal.moved.recv(64)


def test_it_asks_with_half_of_its_time_left_and_says_when_its_end_has_moved(tmp_path: Path) -> None:
    with asked_for(tmp_path, Lasting(86_400, lambda: None, 3_600), 3_600, left=1_801) as (control, renewal):
        assert told(renewal) == b"\0"
        assert control.asked == [("/v1/tasks/task_1/renew", {"ttl": 3_600})]
        assert abs(renewal.ends - datetime.now(UTC) - timedelta(hours=1)) < timedelta(minutes=1)
        assert renewal.refused == ""


def test_each_time_it_shows_another_token(tmp_path: Path) -> None:
    tokens = iter(("one", "two"))
    with asked_for(tmp_path, Lasting(60, lambda: next(tokens), 2), 1, 2) as (control, renewal):
        assert control.enough.wait(30)
        assert [asked["id_token"] for _, asked in control.asked] == ["one", "two"]
        assert told(renewal)


def test_it_asks_for_no_more_than_it_is_to_last_and_then_no_more(tmp_path: Path) -> None:
    with asked_for(tmp_path, Lasting(3, lambda: None, 3_600), 4) as (control, renewal):
        assert told(renewal) == b"\0"
        assert told(renewal) == b""  # its thread has ended
        assert control.asked == [("/v1/tasks/task_1/renew", {"ttl": 3})]
        assert why(renewal) == LONGER


def test_it_goes_on_asking_while_it_is_refused_and_keeps_why(tmp_path: Path) -> None:
    with asked_for(tmp_path, Lasting(60, lambda: None, 2, 0.01), "policy", "policy", 30) as (control, renewal):
        assert told(renewal) == b"\0"
        assert (len(control.asked), renewal.refused) == (3, "")


@pytest.mark.parametrize("error", [GrantTokenError("this login cannot be renewed any more"), OSError("no space left")])
def test_where_nobody_proves_the_login_any_more_it_says_so(tmp_path: Path, error: Exception) -> None:
    tried = threading.Semaphore(0)

    def prove() -> str:
        tried.release()
        raise error

    with asked_for(tmp_path, Lasting(60, prove, 2, 0.01)) as (control, renewal):
        for _ in range(2):
            assert tried.acquire(timeout=60)
        assert control.asked == []
        assert why(renewal) == f"it is not renewed: {error}"


@pytest.mark.parametrize("code", ["revoked", "expired", "not-found"])
def test_what_has_ended_is_not_asked_for_again(tmp_path: Path, code: str) -> None:
    with asked_for(tmp_path, Lasting(60, lambda: None, 2, 0.01), code, 30) as (control, renewal):
        assert told(renewal) == b""
        assert len(control.asked) == 1


def test_what_is_given_no_later_end_is_not_asked_for_again(tmp_path: Path) -> None:
    with asked_for(tmp_path, Lasting(60, lambda: None, 2, 0.01), 5, 1, 30) as (control, renewal):
        assert [told(renewal), told(renewal)] == [b"\0", b""]
        assert len(control.asked) == 2


def test_without_a_broker_it_tries_again(tmp_path: Path) -> None:
    ends = datetime.now(UTC)
    renewal = RunRenewal(tmp_path / "control.sock", "task_1", ends, Lasting(60, lambda: None, 2, 0.01))
    control = Control(tmp_path / "control.sock", [30])
    assert told(renewal) == b"\0"
    assert (len(control.asked), renewal.refused) == (1, "")
    renewal.end()
    control.close()
