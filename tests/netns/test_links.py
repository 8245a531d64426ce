"""Direct links between programs: in one LAN, through NATs, while networks change."""

import pytest
from lab.control import asked
from lab.laboratory import Laboratory
from lab.linked import ROUNDS, Pair
from lab.nats import ADDRESS_RESTRICTED, FULL_CONE, RESTRICTED, SYMMETRIC, Router
from lab.traffic import ping

pytestmark = pytest.mark.netns


def test_in_one_lan(laboratory: Laboratory) -> None:
    laboratory.relay()
    pair = Pair(laboratory, (laboratory.host(), laboratory.host()))
    pair.start()
    there, back = pair.until(path="direct", mtu=1500)
    for found, client in ((there, pair.other), (back, pair.one)):
        assert str(found["endpoint"]).startswith(f"{client.host.address}:")
        assert found["why"] is None
    assert " 0% packet loss" in ping(pair.one.host, pair.its, "-s", "1372", "-M", "do")
    [peer] = asked(pair.one.control, "/v1/members")["members"]
    assert (peer["path"], peer["sealing"]) == ("direct", "sealed")


@pytest.mark.parametrize(
    ("near", "far"),
    [
        (RESTRICTED, RESTRICTED),
        (FULL_CONE, SYMMETRIC),
        (ADDRESS_RESTRICTED, SYMMETRIC),
        (None, SYMMETRIC),
        (RESTRICTED, None),
    ],
)
def test_through_nats(laboratory: Laboratory, near: str | None, far: str | None) -> None:
    laboratory.relay()
    hosts = [
        laboratory.host() if nat is None else Router(laboratory, number, nat).host()
        for number, nat in ((1, near), (2, far))
    ]
    pair = Pair(laboratory, hosts)
    pair.start()
    pair.until(path="direct", mtu=1500)


def test_by_a_forwarded_port(laboratory: Laboratory) -> None:
    """Which its user names. The NAT in front of it lets in nobody else, and the other one's has many ports."""
    laboratory.relay()
    router = Router(laboratory, 1)
    hosts = [router.host(), Router(laboratory, 2, SYMMETRIC).host()]
    router.forward(6001, hosts[0], 5001)
    pair = Pair(laboratory, hosts, "--port", "5001", "--endpoint", f"{router.address}:6001")
    pair.start()
    _, back = pair.until(path="direct", mtu=1500)
    assert back["endpoint"] == f"{router.address}:6001"


def test_symmetric_on_both_ends(laboratory: Laboratory) -> None:
    """The relay stays, and why is said."""
    laboratory.relay()
    pair = Pair(laboratory, (Router(laboratory, number, SYMMETRIC).host() for number in (1, 2)))
    pair.start()
    pair.until(path="relay", why="symmetric NAT on both ends")
    assert " 0% packet loss" in ping(pair.one.host, pair.its)


def test_behind_one_router(laboratory: Laboratory) -> None:
    """Which leads nothing back in."""
    laboratory.relay()
    router = Router(laboratory, 1)
    pair = Pair(laboratory, (router.host(), router.host()))
    pair.start()
    there, _ = pair.until(path="direct")
    assert str(there["endpoint"]).startswith(f"{pair.other.host.address}:")


def test_a_nat_that_forgets_under_traffic(laboratory: Laboratory) -> None:
    laboratory.relay()
    routers = [Router(laboratory, number) for number in (1, 2)]
    pair = Pair(laboratory, (router.host() for router in routers))
    pair.start()
    _, before = pair.until(path="direct")
    since = len(pair.answered())
    routers[0].forget(40000)
    for _ in range(ROUNDS):
        _, back = pair.links
        if back["path"] == "direct" and back["endpoint"] != before["endpoint"]:
            break
        pair.wait(1)
    assert str(back["endpoint"]).startswith(f"{routers[0].address}:40")
    pair.until(path="direct")
    print(f"longest gap: {pair.longest_gap(since):.2f} s")
    assert pair.longest_gap(since) < 5


def test_udp_is_blocked_after_a_while(laboratory: Laboratory) -> None:
    laboratory.relay()
    routers = [Router(laboratory, number) for number in (1, 2)]
    pair = Pair(laboratory, (router.host() for router in routers))
    pair.start()
    pair.until(path="direct")
    since = len(pair.answered())
    routers[0].block()
    pair.until(path="relay")
    pair.wait(40)
    print(f"longest gap: {pair.longest_gap(since):.2f} s")
    assert pair.longest_gap(since) < 5
    routers[0].unblock()
    pair.until(path="direct")


@pytest.mark.parametrize(
    ("relay", "client", "here", "there"),
    [
        ((), ("--no-direct",), "switched off", "switched off there"),
        (("--no-direct",), (), "switched off for the network", "switched off for the network"),
    ],
)
def test_switched_off(
    laboratory: Laboratory, relay: tuple[str, ...], client: tuple[str, ...], here: str, there: str
) -> None:
    laboratory.relay(*relay)
    pair = Pair(laboratory, (laboratory.host(), laboratory.host()), *client)
    pair.start()
    for _ in range(ROUNDS):
        if [each["why"] for each in pair.links] == [here, there]:
            break
        pair.wait(1)
    assert [(each["path"], each["why"]) for each in pair.links] == [("relay", here), ("relay", there)]


def test_a_port_that_is_taken(laboratory: Laboratory) -> None:
    laboratory.relay()
    host = laboratory.host()
    one = laboratory.client("--direct", "--port", "5000", "-n", "one", host=host)
    one.connected()
    other = laboratory.client("--direct", "--port", "5000", "-n", "other", host=host)
    other.wait_for("cannot use UDP port 5000 for direct links: Address already in use: choose another with --port")
    assert other.wait() == 1
