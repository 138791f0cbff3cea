"""A workload with nothing but its SPIFFE identity opens a task at a broker, and takes a lease of what it may use.

    SPIFFE_ENDPOINT_SOCKET=unix:///run/spire/agent.sock python workload.py https://remit.example:8443 DETAILS

It needs `pip install httpx spiffe` and the client library of remit. ``SSL_CERT_FILE`` names the authority that signed
the broker's certificate, if the system does not know it.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import httpx
from spiffe import WorkloadApiClient

from remit.sdk.dpop import DPoPKey


def proven(broker: httpx.Client, key: DPoPKey, method: str, url: str, **more: Any) -> httpx.Response:
    """Send a request with a proof of the key; again, when the first answer has the nonce that a proof must carry.

    A refusal ends the program with the broker's own reason, and with what it says to do about it.
    """
    answer = _sent(broker, key, method, url, None, **more)
    if not answer.is_success and "dpop-nonce" in answer.headers:
        answer = _sent(broker, key, method, url, answer.headers["dpop-nonce"], **more)
    if not answer.is_success:
        raise SystemExit(refusal(answer))
    return answer


def refusal(answer: httpx.Response) -> str:
    """Return why the broker refused: `/oauth` answers by RFC 6749, `/v1` by RFC 9457, both with `code` and `help`."""
    try:
        told = answer.json()
    except ValueError:  # not the broker: something on the way to it
        return f"error: {answer.request.url} answered {answer.status_code}"
    why = told.get("error_description") or told.get("detail") or told.get("error")
    lines = [f"error: {why} ({answer.status_code} {told.get('code')})"]
    lines += [f"  too wide: {detail}" for detail in told.get("offending", [])]
    lines += [f"help: {told['help']}"] if "help" in told else []
    return "\n".join(lines)


def _sent(
    broker: httpx.Client, key: DPoPKey, method: str, url: str, nonce: str | None, token: str | None = None, **more: Any
) -> httpx.Response:
    headers = {"dpop": key.proof(method, url, token=token, nonce=nonce)}
    headers |= {"authorization": f"DPoP {token}"} if token else {}
    return broker.request(method, url, headers=headers, **more)


def main(issuer: str, details: str) -> None:
    """Open a task, print what the broker says that this workload may do, and take leases of it.

    A detail of type `http` has none: it is used at the gateway, which listens on the broker's own host alone.
    """
    key = DPoPKey()
    with WorkloadApiClient() as agent:
        svid = agent.fetch_jwt_svid({issuer})  # for the broker, and for nobody else
    form = {
        "grant_type": "client_credentials",
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe",
        "client_assertion": svid.token,
        "purpose": "index the nightly reports",
        "ttl": "600",
        "authorization_details": details,
    }
    with httpx.Client() as broker:
        opened = proven(broker, key, "POST", f"{issuer}/oauth/token", data=form).json()
        token, leases = opened["access_token"], f"{issuer}/v1/tasks/{opened['task']}/leases"
        print(proven(broker, key, "GET", f"{issuer}/v1/self", token=token).text)
        for detail in opened["authorization_details"]:
            if detail["type"] != "http":
                asked = {"grant": opened["grant"], "detail": detail}
                lease = proven(broker, key, "POST", leases, token=token, json=asked).json()
                use(lease["lease"], lease["expires_at"], lease["credential"])


def use(lease: str, expires_at: str, credential: dict[str, Any]) -> None:
    """Do the work; a database's credential has a `dsn` to connect by, which nobody should print."""
    print(json.dumps({"lease": lease, "expires_at": expires_at, "credential": sorted(credential)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
