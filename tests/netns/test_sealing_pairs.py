"""Old clients and members that seal in one network, each with each: who reaches whom, and how its user is told."""

import errno
from itertools import permutations

import pytest
from lab.builds import Build
from lab.control import drops_of, sealing_of
from lab.laboratory import Laboratory
from lab.traffic import ping, refused

pytestmark = pytest.mark.netns

KINDS = ("candy.2", "original", "prefer", "prefer", "require", "require")
OLD = {"candy.2", "original"}


def test_each_with_each(laboratory: Laboratory, reference: Build) -> None:
    relay = laboratory.relay()
    # One password for both is worth a warning.
    relay.wait_for(" WARNING old clients and members with keys log in by the same password")
    members = []
    for kind in KINDS:
        match kind:
            case "candy.2":
                client = reference.client(laboratory)
            case "original":
                client = laboratory.client("--no-extension")
            case _:
                client = laboratory.client("--seal", kind)
        members.append((kind, client))
    for _, client in members:
        client.connected()
    for (kind, here), (other, there) in permutations(members, 2):
        address = there.connected()
        if {kind, other} & OLD and "require" in (kind, other):
            if kind == "require":
                assert refused(here.host, address) == errno.EHOSTUNREACH
                assert "Packet filtered" in ping(here.host, address, "-c", "3", "-i", "0.6", "-W", "1")
                assert sealing_of(here.control, address) == ("does not seal", None)
                assert drops_of(here.control)["peer_not_sealing"]
            else:
                before = drops_of(there.control)["not_sealed"]
                assert " 100% packet loss" in ping(here.host, address, "-c", "1", "-W", "1")
                assert drops_of(there.control)["not_sealed"] == before + 1
            continue
        assert " 0% packet loss" in ping(here.host, address, "-c", "1")
        if kind not in OLD:
            sealing, key = sealing_of(here.control, address)
            assert (sealing, key is None) == (("clear", True) if other in OLD else ("sealed", False))
    assert "dropped not_sealed" not in relay.counters()
