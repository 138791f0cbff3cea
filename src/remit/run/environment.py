"""What a run finds: its listeners, the placeholders where SDKs expect keys, and the variables that name both. Pure.

A placeholder looks like the real key so that SDKs accept it, is drawn afresh for each run, and is worth nothing outside
it: the gateway swaps it on this run's listener only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from remit.core.task import Grant
from remit.ports import Resource

GATEWAY_PORT = 8471
DATABASE_PORT = 5432  # of the first database; the next ones follow
GENERIC = "generic"

Placeholder = Callable[[str], str]  # a provider's shape -> a fresh placeholder


@dataclass(frozen=True, slots=True)
class ProviderVariables:
    """What the catalog says of a provider, as far as a run needs it.

    ``variables`` are those in which its SDKs look for the key, ``base_urls`` those in which they look for the base URL,
    each with the path that goes below the resource; ``shape`` tells ``Placeholder`` what a key looks like.
    """

    variables: tuple[str, ...]
    base_urls: Mapping[str, str]
    shape: str


@dataclass(frozen=True, slots=True)
class RunListener:
    """One listener of a run: a TCP ``port`` on 127.0.0.1 (0: any free one), or a unix socket at ``path``."""

    name: str  # gateway | postgres:<resource> | channel | launch | workload
    port: int | None = None
    path: str | None = None

    @property
    def kind(self) -> str:
        """The name without the resource."""
        return self.name.partition(":")[0]

    @property
    def resource(self) -> str:
        """The resource behind a database port; empty for other kinds."""
        return self.name.partition(":")[2]

    def wire(self) -> dict[str, object]:
        """Return the listener as the hand-over names it."""
        place = {"path": self.path} if self.port is None else {"port": self.port}
        return {"name": self.name, **place}


@dataclass(frozen=True, slots=True)
class RunProvisioning:
    """What one run gets before its ports are known. ``placeholders`` are by resource."""

    listeners: tuple[RunListener, ...]
    placeholders: Mapping[str, str] = field(default_factory=dict)


def provision(
    grant: Grant,
    resources: Mapping[str, Resource],
    providers: Mapping[str, ProviderVariables],
    placeholder: Placeholder,
    folder: str,
    *,
    private: bool = True,
    workload: bool = False,
) -> RunProvisioning:
    """Return what a run under ``grant`` gets: its sockets in ``folder``, fixed ports if its network is ``private``.

    ``workload``: the SPIFFE Workload API is there, for grants that may have SVIDs.
    """
    mine = _mine(grant, resources)
    databases = [resource for resource in mine if resource.kind == "postgres"]
    listeners = [
        RunListener("gateway", port=GATEWAY_PORT if private else 0),
        *(
            RunListener(f"postgres:{resource.name}", port=DATABASE_PORT + at if private else 0)
            for at, resource in enumerate(databases)
        ),
        RunListener("channel", path=f"{folder}/channel.sock"),
        RunListener("launch", path=f"{folder}/launch.sock"),
    ]
    if workload and any(resource.kind == "spiffe" for resource in mine):
        listeners.append(RunListener("workload", path=f"{folder}/workload.sock"))
    shapes = {r.name: _provider(r, providers).shape for r in mine if r.kind == "http" and _known(r, providers)}
    generic = {r.name: "" for r in mine if r.kind == "http" and r.name not in shapes}
    return RunProvisioning(
        tuple(listeners), {name: placeholder(shape) for name, shape in {**shapes, **generic}.items()}
    )


def variables(
    grant: Grant,
    resources: Mapping[str, Resource],
    providers: Mapping[str, ProviderVariables],
    placeholders: Mapping[str, str],
    places: Mapping[str, int | str],
) -> dict[str, str]:
    """Return the variables of a run whose listeners are at ``places``, by name: ports and paths.

    With two resources of one provider the first of the grant's details has the provider's variables; every resource
    has those of its own name: ``REMIT_URL_<NAME>``, and ``REMIT_KEY_<NAME>`` with its placeholder.
    """
    base = f"http://127.0.0.1:{places['gateway']}"
    found = {"REMIT_GRANT": grant.id, "REMIT_SOCKET": str(places["channel"]), "REMIT_GATEWAY": base}
    if "workload" in places:
        found["SPIFFE_ENDPOINT_SOCKET"] = f"unix://{places['workload']}"
    for resource in _mine(grant, resources):
        found |= _own(resource, base, placeholders, places)
        if resource.kind == "http" and _known(resource, providers):
            provider = _provider(resource, providers)
            for name, path in provider.base_urls.items():
                found.setdefault(name, f"{base}/{resource.name}{path}")
            for name in provider.variables:
                found.setdefault(name, placeholders[resource.name])
    return found


def _own(
    resource: Resource, base: str, placeholders: Mapping[str, str], places: Mapping[str, int | str]
) -> dict[str, str]:
    label = resource.name.upper().replace("-", "_").replace(".", "_")
    if resource.kind == "http":
        return {f"REMIT_URL_{label}": f"{base}/{resource.name}", f"REMIT_KEY_{label}": placeholders[resource.name]}
    port = places.get(f"postgres:{resource.name}")
    return {} if port is None else {f"REMIT_PORT_{label}": str(port)}


def _mine(grant: Grant, resources: Mapping[str, Resource]) -> list[Resource]:
    """Return the resources of a grant, in the order of its details."""
    names = dict.fromkeys(detail.resource for detail in grant.scope)
    return [resources[name] for name in names if name in resources]


def _known(resource: Resource, providers: Mapping[str, ProviderVariables]) -> bool:
    return resource.settings.get("provider", GENERIC) in providers


def _provider(resource: Resource, providers: Mapping[str, ProviderVariables]) -> ProviderVariables:
    return providers[str(resource.settings.get("provider", GENERIC))]
