"""A workload with nothing but its SPIFFE identity opens a task at a broker and asks for what it may do.

    SPIFFE_ENDPOINT_SOCKET=unix:///run/spire/agent.sock python workload.py https://remit.example:8443 DETAILS

It needs `pip install httpx spiffe` and the client library of remit. ``SSL_CERT_FILE`` names the authority that signed
the broker's certificate, if the system does not know it.
"""

from __future__ import annotations

import sys
from typing import Any

import httpx
from spiffe import WorkloadApiClient

from remit.sdk.dpop import Key


def proven(broker: httpx.Client, key: Key, method: str, url: str, **more: Any) -> httpx.Response:
    """Send a request with a proof of the key; again, when the first answer has the nonce that a proof must carry."""
    answer = _sent(broker, key, method, url, None, **more)
    if not answer.is_success and "dpop-nonce" in answer.headers:
        answer = _sent(broker, key, method, url, answer.headers["dpop-nonce"], **more)
    return answer.raise_for_status()


def _sent(
    broker: httpx.Client, key: Key, method: str, url: str, nonce: str | None, token: str | None = None, **more: Any
) -> httpx.Response:
    headers = {"dpop": key.proof(method, url, token=token, nonce=nonce)}
    headers |= {"authorization": f"DPoP {token}"} if token else {}
    return broker.request(method, url, headers=headers, **more)


def main(issuer: str, details: str) -> None:
    """Open a task, and print what the broker says that this workload may do."""
    key = Key()
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
        token = proven(broker, key, "POST", f"{issuer}/oauth/token", data=form).json()["access_token"]
        print(proven(broker, key, "GET", f"{issuer}/v1/self", token=token).text)


if __name__ == "__main__":
    main(*sys.argv[1:])
