"""Which grant a run may have, and what its surroundings promise."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from remit.core.principal import Holder
from remit.core.request import GrantRequest
from tests.broker.world import OPERATOR, STRANGER, details
from tests.grant_requests import changed
from tests.run.launchers import SANDBOX, code, grant_of, launcher
from tests.run.rig import READ, House, opening


@pytest.mark.parametrize(
    ("request_", "wanted"),
    [
        (opening(), "denied"),
        ({"delegate": {"parent": "grt_unknown", "authorization_details": [READ]}}, "not-found"),
        ({"grant": "grt_unknown"}, "not-found"),
        ({"delegate": {"authorization_details": [{**READ, "actions": ["GET", "DELETE"]}]}}, "attenuation"),
        ({"delegate": {"authorization_details": [READ], "ttl": 100_000}}, "invalid-request"),
    ],
)
def test_a_run_gets_no_more_than_it_has(runs: House, request_: Mapping[str, object], wanted: str) -> None:
    with launcher(runs) as outer:
        outer.launch(opening())
        with launcher(runs, outer) as inner:
            assert code(inner.begin({**SANDBOX, **request_})) == wanted


@pytest.mark.parametrize(
    ("held", "weaker"), [("namespace", "host-net"), ("namespace", "unsandboxed"), ("host-net", "unsandboxed")]
)
def test_a_run_in_weaker_surroundings_than_its_grant_promises_is_refused(runs: House, held: str, weaker: str) -> None:
    with launcher(runs) as outer, launcher(runs) as other, launcher(runs) as child:
        granted, _ = outer.launch(opening(), isolation=held)
        refused = other.begin({**SANDBOX, "grant": granted["grant"], "isolation": weaker})
        assert code(refused) == "denied"
        request = {"parent": granted["grant"], "authorization_details": [READ]}
        made, _ = child.launch({"delegate": request}, isolation=weaker)
        assert grant_of(runs, made).posture.isolation == weaker


def attaching(house: House) -> list[tuple[str, str | None, str | None, str | None]]:
    """Return what the audit says of runs that were started on grants which were there."""
    events = house.call(house.world.events())
    return [(e.decision, e.grant, e.code, e.cause) for e in events if e.event == "grant.attach"]


def test_a_run_on_a_grant_that_was_there_is_recorded(runs: House) -> None:
    grant = runs.call(runs.world.opened(runs.broker))
    with launcher(runs) as outer:
        outer.launch({"grant": grant.id})
        with launcher(runs, outer) as inner:
            inner.launch({"grant": grant.id})
    assert attaching(runs) == [
        ("allow", grant.id, None, f"by {OPERATOR.subject.sub}"),
        ("allow", grant.id, None, f"by {grant.id}"),
    ]


@pytest.mark.parametrize("bound", [{"jkt": "k" * 43}, {"x5t": "c" * 43}, {"attested": True}])
def test_no_run_is_started_on_a_grant_that_is_bound_or_attested(runs: House, bound: Mapping[str, object]) -> None:
    grant = runs.call(runs.world.opened(runs.broker, **bound))
    with launcher(runs) as one:
        assert code(one.begin({**SANDBOX, "grant": grant.id})) == "denied"
    with launcher(runs) as outer:
        root, _ = outer.launch(opening())
        made = changed(GrantRequest(details(READ)), bound)
        theirs = runs.call(
            runs.broker.delegate(Holder(str(root["task"]), str(root["grant"])), str(root["grant"]), made)
        )
        with launcher(runs, outer) as inner:
            assert code(inner.begin({**SANDBOX, "grant": theirs.id})) == "denied"
    assert attaching(runs) == [
        ("deny", grant.id, "denied", f"by {OPERATOR.subject.sub}"),
        ("deny", root["grant"], "denied", f"under {theirs.id}"),
    ]


def test_the_owner_starts_no_run_on_the_grant_of_another_human(runs: House) -> None:
    grant = runs.call(runs.world.opened(runs.broker))
    runs.call(runs.serve_operator(runs.folder / "other.sock", STRANGER))
    with launcher(runs) as one:
        one.asks = runs.folder / "other.sock"
        assert code(one.begin({**SANDBOX, "grant": grant.id})) == "denied"
    assert attaching(runs) == [("deny", grant.id, "denied", f"under {grant.id}")]


def test_a_grant_that_promises_no_surroundings_is_used_in_any(runs: House) -> None:
    grant = runs.call(runs.world.opened(runs.broker))
    with launcher(runs) as one:
        assert one.launch({"grant": grant.id}, isolation="unsandboxed")[1]["ready"] is True


def test_a_run_inside_promises_no_more_than_the_run_around_it_whatever_its_grant_does(runs: House) -> None:
    grant = runs.call(runs.world.opened(runs.broker))
    with launcher(runs) as outer:
        outer.launch({"grant": grant.id}, isolation="host-net")
        with launcher(runs, outer) as inner:
            child, _ = inner.launch({"delegate": {"authorization_details": [{**READ, "uses": 1}]}})
            assert grant_of(runs, child).posture.isolation == "host-net"


def test_a_run_cannot_use_the_grant_of_a_sibling_or_of_its_parent(runs: House) -> None:
    with launcher(runs) as outer, launcher(runs) as other:
        root, _ = outer.launch(opening())
        foreign, _ = other.launch(opening())
        with launcher(runs, outer) as first, launcher(runs, outer) as second:
            one, _ = first.launch({"delegate": {"authorization_details": [READ]}})
            two, _ = second.launch({"delegate": {"authorization_details": [READ]}})
            for grant in (two["grant"], root["grant"], foreign["grant"]):
                with launcher(runs, first) as thief:
                    assert code(thief.begin({**SANDBOX, "grant": grant})) == "not-found"
            assert one["grant"] != two["grant"]


def test_an_agent_cannot_claim_a_better_posture_than_what_surrounds_it(runs: House) -> None:
    with launcher(runs) as outer:
        outer.launch(opening(), isolation="host-net")
        with launcher(runs, outer) as inner:
            child, _ = inner.launch({"delegate": {"authorization_details": [READ]}})
            assert grant_of(runs, child).posture.isolation == "host-net"


@pytest.mark.parametrize("isolation", ["namespace", "host-net", "unsandboxed"])
def test_the_posture_is_recorded(runs: House, isolation: str) -> None:
    with launcher(runs) as one:
        granted, _ = one.launch(opening(), isolation=isolation)
        posture = grant_of(runs, granted).posture
        assert (posture.isolation, posture.custody) == (isolation, "channel")


def test_how_far_a_grant_may_be_delegated_is_as_it_was_asked_for(runs: House) -> None:
    request = opening(depth=1, fan_out=2, exercise=False, unattested=False, delegates=["spiffe://prod.test/ci/*"])
    with launcher(runs) as one:
        granted, _ = one.launch(request)
        grant = grant_of(runs, granted)
        assert (grant.bounds.depth, grant.bounds.fan_out, grant.bounds.exercise, grant.bounds.unattested) == (
            1,
            2,
            False,
            False,
        )
        assert grant.delegates == ("spiffe://prod.test/ci/*",)
