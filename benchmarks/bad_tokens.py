"""Revocation beside strangers who show ID tokens that nobody signed, each with a proof that is good.

``python -m benchmarks.bad_tokens PORT SECONDS TOKEN`` is the flood: what it prints last is how many answers it got that
said what.
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlencode

from joserfc.jwk import RSAKey

from benchmarks import attack, identity, ours, runs
from benchmarks.client import FORM, Client, Load, machine
from benchmarks.control import nonce
from benchmarks.figure import Figure, figure
from examples.demo.house import House
from remit.sdk import verbs
from remit.sdk.dpop import DPoPKey
from tests.support.postgres_server import free_port

ROUNDS = 3
ENDS = 200  # in a round
CONNECTIONS = 64
FLOOD = 20.0  # seconds at most; it begins before what is measured, and is ended after it
REFUSED = "its signature does not hold"
SIGNATURE = 256  # bytes of one by RSA of 2048 bits


def revoke_under_bad_tokens() -> Figure:
    """Milliseconds (p99) until an operator's close of a task answers ``closed`` beside the flood, against calm."""
    key, port = RSAKey.generate_key(2048, private=True), free_port()
    calm, flooded = list[Load](), list[Load]()
    with identity.issuer(key) as url, identity.with_policy(port, url) as house:
        ours.with_upstream(house, 9, ours.SECRET)
        for _ in range(ROUNDS):
            calm.append(_ends(house))
            with _flooded(port, identity.id_token(key, url, "remit")) as answers:
                flooded.append(_ends(house))
            print(f"  {_line(flooded[-1], calm[-1])}; answers {dict(answers)}; {machine()}", file=sys.stderr)
            if answers.keys() != {REFUSED}:
                raise RuntimeError(f"the tokens were to be refused, and were answered {dict(answers)}")
    mine, theirs = [each.p99 for each in flooded], [each.p99 for each in calm]
    return figure("revoke_under_bad_tokens", "ms", mine, attack.CALM, theirs, ENDS * ROUNDS)


def _ends(house: House) -> Load:
    return asyncio.run(attack.ends(house, ours.opened(house, ENDS, ours.HTTP)))


def _line(it: Load, calm: Load) -> str:
    return f"ends p50 {it.p50:.1f} ms, p99 {it.p99:.1f} ms; calm {calm.p50:.1f}, {calm.p99:.1f}"


@contextmanager
def _flooded(port: int, token: str) -> Iterator[Counter[str]]:
    """Flood the control plane until the block ends; yield what was answered, which is there after it."""
    command = [sys.executable, "-m", "benchmarks.bad_tokens", str(port), str(FLOOD), token]
    answers = Counter[str]()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as flood:
        try:
            if flood.stdout is None or flood.stdout.readline() != "up\n":
                raise RuntimeError("the flood does not begin")
            yield answers
            if flood.poll() is not None:
                raise RuntimeError("the flood ended before what is measured beside it")
            out, _ = flood.communicate("\n", runs.START)
            answers.update(json.loads(out))
        finally:
            flood.kill()


def main(port: int, seconds: float, token: str) -> None:
    """Show tokens until the time is up, or somebody says so on stdin."""
    answers = asyncio.run(_flood(port, seconds, token, nonce(port)))
    print(json.dumps(answers))


async def _flood(port: int, seconds: float, token: str, fresh: str) -> Counter[str]:
    """Return what was answered, and how often."""
    endpoint, answers, first = f"http://127.0.0.1:{port}/oauth/token", Counter[str](), asyncio.Event()
    over = asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)

    async def stranger() -> None:
        client, holder = await Client.connect(port), DPoPKey()
        while True:
            proof = holder.proof("POST", endpoint, nonce=fresh)
            fields = {**FORM, "Host": f"127.0.0.1:{port}", "DPoP": proof}
            _, answer = await client.request("POST", "/oauth/token", _body(token), fields)
            answers[json.loads(answer)["error_description"]] += 1
            first.set()

    strangers = [asyncio.create_task(stranger()) for _ in range(CONNECTIONS)]
    await asyncio.wait((asyncio.create_task(first.wait()), *strangers), return_when=asyncio.FIRST_COMPLETED)
    print("up", flush=True)
    with suppress(TimeoutError):
        await asyncio.wait_for(asyncio.shield(over), seconds)
    for each in strangers:
        each.cancel()
    for ended in await asyncio.gather(*strangers, return_exceptions=True):
        answers[type(ended).__name__] += not isinstance(ended, asyncio.CancelledError)
    return +answers


def _body(token: str) -> bytes:
    """Return a request for a task by a token of which all is right but the signature."""
    signature = base64.urlsafe_b64encode(secrets.token_bytes(SIGNATURE)).rstrip(b"=").decode()
    fields = {
        "grant_type": verbs.EXCHANGE,
        "subject_token_type": identity.ID_TOKEN,
        "subject_token": f"{token.rpartition('.')[0]}.{signature}",
        "authorization_details": json.dumps([dict(ours.HTTP)]),
        "purpose": "measure",
        "ttl": "600",
    }
    return urlencode(fields).encode()


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3])
