"""Real Envoys in runs: they have their certificates from the run's socket, by SDS, and speak mutual TLS to each other.

In a run this file is the program: it puts the run's own socket into the configuration, and becomes Envoy.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

PROGRAM = Path(sys.prefix, "bin", "envoy")
SOCKET = "the run's socket"
TYPES = "type.googleapis.com/envoy.extensions"
TLS = f"{TYPES}.transport_sockets.tls.v3"
OPTIONS = f"{TYPES}.upstreams.http.v3.HttpProtocolOptions"


def _pipe(path: Path | str) -> dict[str, Any]:
    return {"pipe": {"path": str(path)}}


def _cluster(name: str, path: Path | str, **more: object) -> dict[str, Any]:
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": _pipe(path)}}]}]
    return {"name": name, "load_assignment": {"cluster_name": name, "endpoints": endpoints}, **more}


def _spoken(protocol: str, **more: object) -> dict[str, Any]:
    """Return the HTTP that a cluster speaks."""
    options = {"@type": OPTIONS, "explicit_http_config": {protocol: {}}, **more}
    return {"typed_extension_protocol_options": {OPTIONS.partition("/")[2]: options}}


def _secret(name: str) -> dict[str, Any]:
    api = {
        "api_type": "GRPC",
        "transport_api_version": "V3",
        "grpc_services": [{"envoy_grpc": {"cluster_name": "remit"}}],
    }
    return {"name": name, "sds_config": {"resource_api_version": "V3", "api_config_source": api}}


def _tls(kind: str, peers: str, trust: str, **more: object) -> dict[str, Any]:
    """Return a TLS socket with an SVID of its own, for peers whose SPIFFE ID begins with ``peers``."""
    matching = [{"san_type": "URI", "matcher": {"prefix": peers}}]
    common = {
        "tls_certificate_sds_secret_configs": [_secret("default")],
        "combined_validation_context": {
            "default_validation_context": {"match_typed_subject_alt_names": matching},
            "validation_context_sds_secret_config": _secret(trust),
        },
    }
    config = {"@type": f"{TLS}.{kind}TlsContext", "common_tls_context": common, **more}
    return {"transport_socket": {"name": "tls", "typed_config": config}}


def _listener(path: Path, route: object, tls: dict[str, Any]) -> dict[str, Any]:
    router = {"name": "router", "typed_config": {"@type": f"{TYPES}.filters.http.router.v3.Router"}}
    manager = {
        "@type": f"{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "http",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [router],
    }
    return {"address": _pipe(path), "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}], **tls}]}


def _config(folder: Path, name: str, listener: dict[str, Any], *clusters: dict[str, Any]) -> dict[str, Any]:
    grpc = _spoken("http2_protocol_options")
    return {
        "node": {"id": name, "cluster": name},
        "admin": {"address": _pipe(folder / f"{name}-admin.sock")},
        "static_resources": {"listeners": [listener], "clusters": [_cluster("remit", SOCKET, **grpc), *clusters]},
    }


def service(folder: Path, trust: str, *, resumes: bool = False) -> dict[str, Any]:
    """Return an Envoy that tells whoever has an SVID who they are; each connection anew, unless it ``resumes``."""
    told = [
        {"header": {"key": f"x-peer-{key}", "value": f"%DOWNSTREAM_PEER_{value}%"}}
        for key, value in (("id", "URI_SAN"), ("serial", "SERIAL"))
    ]
    route = {
        "match": {"prefix": "/"},
        "direct_response": {"status": 200, "body": {"inline_string": "paid"}},
        "response_headers_to_add": told,
    }
    anew = {f"disable_{kind}_session_resumption": not resumes for kind in ("stateless", "stateful")}
    tls = _tls("Downstream", "spiffe://", trust, require_client_certificate=True, **anew)
    return _config(folder, "service", _listener(folder / "service.sock", route, tls))


def agent(folder: Path, peers: str, trust: str) -> dict[str, Any]:
    """Return an Envoy that puts an agent's SVID in, and speaks to the service alone, a connection a request."""
    route = {"match": {"prefix": "/"}, "route": {"cluster": "service"}}
    once = _spoken("http_protocol_options", common_http_protocol_options={"max_requests_per_connection": 1})
    cluster = _cluster("service", folder / "service.sock", **once, **_tls("Upstream", peers, trust))
    return _config(folder, "agent", _listener(folder / "agent.sock", route, {}), cluster)


if __name__ == "__main__":
    told, program = sys.argv[1:]
    held = Path(told).read_text("utf-8").replace(SOCKET, os.environ["SPIFFE_ENDPOINT_SOCKET"].removeprefix("unix://"))
    os.execv(program, [program, "--config-yaml", held, "--concurrency", "1", "--disable-hot-restart", "-l", "off"])  # noqa: S606
