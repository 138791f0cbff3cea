"""What a run finds: its listeners, the placeholders where SDKs expect keys, and the variables that name both. Pure.

A placeholder looks like the real key so that SDKs accept it, is drawn afresh for each run, and is worth nothing outside
it: the gateway swaps it on this run's listener only.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field

from remit.core.task import Grant
from remit.errors import InvalidRequestError, ScopeError
from remit.ports import Resource
from remit.ports.kind import STARTED, GatewayAccess, Kind, PortAccess, SocketAccess, TunnelAccess
from remit.ports.runs import Places, ReachedHost, RunListener
from remit.run import named
from remit.run.spec import SERVERS, STDIO

GATEWAY_PORT, PROXY_PORT, HTTPS_PORT = 8471, 8472, 443
_PROXY = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
_NO_PROXY = ("NO_PROXY", "no_proxy")
PLACEHOLDER_BYTES = 32

Kinds = Mapping[str, Kind]


@dataclass(frozen=True, slots=True)
class RunProvisioning:
    """What one run gets before its ports are known."""

    listeners: tuple[RunListener, ...]
    placeholders: Mapping[str, str]  # by resource
    hosts: Mapping[str, ReachedHost] = field(default_factory=dict)  # by which clients in the run know resources
    passed: Mapping[str, str] = field(default_factory=dict)  # hosts, `*.host` too, that are not looked into: resource

    @property
    def launch(self) -> str:
        """The path of the socket to which launchers inside the run come."""
        return next(str(listener.path) for listener in self.listeners if listener.name == "launch")


def provision(
    grant: Grant,
    resources: Mapping[str, Resource],
    kinds: Kinds,
    random: Callable[[int], bytes],
    folder: str,
    *,
    private: bool = True,
    sockets: Collection[str] = (),
    stdio: str | None = None,
    servers: bool = False,
    elsewhere: Collection[str] = (),
) -> RunProvisioning:
    """Return what a run under ``grant`` gets: its sockets in ``folder``, fixed ports if its network is ``private``.

    ``sockets`` are those of kinds that something here serves; ``stdio`` is the resource that its command is;
    ``servers``: its launcher starts those that are commands, but for those that are started ``elsewhere``.
    """
    ports, names, placeholders = {"gateway": GATEWAY_PORT}, ["channel", "launch"], dict[str, str]()
    hosts: dict[str, ReachedHost] = {}
    passed: dict[str, str] = {}
    for resource in _held(grant, resources, kinds):
        match kinds[resource.kind].access:
            case GatewayAccess() as access:
                placeholders[resource.name] = access.placeholder(resource, random(PLACEHOLDER_BYTES))
                known = {host: ReachedHost(resource.name, base) for host, base in access.hosts(resource).items()}
                hosts = {**known, **hosts}
            case PortAccess(port=port):
                while port in ports.values():
                    port += 1
                ports[f"{resource.kind}:{resource.name}"] = port
            case TunnelAccess(field=listed):
                details = [detail for detail in grant.scope if detail.resource == resource.name]
                passed = {host: resource.name for each in details for host in each.texts(listed)} | passed
            case SocketAccess(socket=socket) if socket in sockets and socket not in names:
                names.append(socket)
    listeners = [RunListener(name, port=port if private else 0) for name, port in ports.items()]
    listeners += [RunListener(name, path=f"{folder}/{name}.sock") for name in names]
    if hosts or passed:
        listeners.append(RunListener("proxy", port=PROXY_PORT if private else 0))
    if (hosts or passed) and private:
        listeners.append(RunListener("https", port=HTTPS_PORT))
    if stdio is not None:
        listeners.append(_command(stdio, grant, resources, kinds, folder))
    commands = [each.name for each in _held(grant, resources, kinds) if servers and _is_command(each, kinds)]
    serves = tuple(name for name in commands if name not in elsewhere)
    listeners += [RunListener(SERVERS, path=f"{folder}/{SERVERS}.sock", serves=serves)] if serves else []
    return RunProvisioning(tuple(listeners), placeholders, hosts, passed)


def variables(
    grant: Grant,
    resources: Mapping[str, Resource],
    kinds: Kinds,
    placeholders: Mapping[str, str],
    places: Places,
) -> dict[str, str]:
    """Return the variables of a run whose listeners are at ``places``, by name: ports and paths.

    With two resources of one provider the first of the grant's details has the provider's variables; every resource
    has those of its own name: ``REMIT_URL_<NAME>`` and ``REMIT_KEY_<NAME>`` with its placeholder, or its port.
    """
    base = f"http://127.0.0.1:{places['gateway']}"
    found = {"REMIT_GRANT": grant.id, "REMIT_SOCKET": str(places["channel"]), "REMIT_GATEWAY": base}
    for resource in _held(grant, resources, kinds):
        label = named.label(resource.name)
        match kinds[resource.kind].access:
            case GatewayAccess() as access:
                url, placeholder = f"{base}/{resource.name}", placeholders[resource.name]
                found |= {f"REMIT_URL_{label}": url, f"REMIT_KEY_{label}": placeholder}
                found = {**access.variables(resource, url, placeholder), **found}
            case PortAccess() if port := places.get(f"{resource.kind}:{resource.name}"):
                found[f"REMIT_PORT_{label}"] = str(port)
            case SocketAccess(socket=socket, variable=variable) if socket in places:
                found[variable] = f"unix://{places[socket]}"
    if "proxy" in places:
        found["REMIT_PROXY"] = f"http://127.0.0.1:{places['proxy']}"
    if "https" in places:  # there is no other way out
        found |= dict.fromkeys(_PROXY, found["REMIT_PROXY"]) | dict.fromkeys(_NO_PROXY, "localhost,127.0.0.1,::1")
        found["NODE_USE_ENV_PROXY"] = "1"
    return found


def shared(grant: Grant, resources: Mapping[str, Resource], kinds: Kinds) -> dict[str, tuple[str, ...]]:
    """Return the variables that several resources of a grant would have, with these resources: the first has them."""
    found: dict[str, tuple[str, ...]] = {}
    for resource in _held(grant, resources, kinds):
        access = kinds[resource.kind].access
        names = access.variables(resource, "", "") if isinstance(access, GatewayAccess) else ()
        found |= {name: (*found.get(name, ()), resource.name) for name in names}
    return {name: of for name, of in found.items() if len(of) > 1}


def _held(grant: Grant, resources: Mapping[str, Resource], kinds: Kinds) -> Iterator[Resource]:
    """Yield the resources of a grant that a run reaches, in the order of its details."""
    names = dict.fromkeys(detail.resource for detail in grant.scope)
    found = [resources[name] for name in names if name in resources]
    return (each for each in found if STARTED in each.settings or not _is_command(each, kinds))


def _is_command(resource: Resource, kinds: Kinds) -> bool:
    return kinds[resource.kind].is_command(resource.destination)


def _command(name: str, grant: Grant, resources: Mapping[str, Resource], kinds: Kinds, folder: str) -> RunListener:
    """Return the listener of a run whose command is a resource of its grant."""
    if not any(detail.resource == name for detail in grant.scope) or name not in resources:
        raise ScopeError(f"the grant does not cover `{name}`")
    if not _is_command(resources[name], kinds):
        raise InvalidRequestError(f"`{name}` is no server that is a command", help="its destination says so")
    return RunListener(f"{STDIO}:{name}", path=f"{folder}/stdio.sock")
