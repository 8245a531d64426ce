"""Why a log-in failed or a connection ended, as the client of a real relay says it, and what two clones do."""

import re
import shutil
import signal

import pytest
from lab.laboratory import Client, Laboratory

pytestmark = pytest.mark.netns


@pytest.mark.parametrize(
    ("relay", "client", "words"),
    [
        (["-d", ""], [], "the network has no address pool: a member needs a fixed address: choose one with --tun"),
        (
            ["-d", "192.168.202.0/30", "-t", "192.168.202.1/30", "--tun", "192.168.202.2/30"],
            ["-t", "192.168.202.2/30"],
            "192.168.202.2 is the relay's own: end the member that has it, or choose another address with --tun",
        ),
        (
            [],
            ["-t", "10.9.0.5/24"],
            "10.9.0.5 is not a member's address in the pool 192.168.202.0/24: choose another with --tun",
        ),
    ],
)
def test_a_refusal_is_told_in_words_with_its_cure(
    laboratory: Laboratory, relay: list[str], client: list[str], words: str
) -> None:
    laboratory.relay(*relay)
    one = laboratory.client(*client)
    one.wait_for(f"WARNING refused by the relay: {re.escape(words)}.*; trying again in 1")


def test_a_wrong_password_has_a_sentence_of_its_own(laboratory: Laboratory) -> None:
    laboratory.relay()
    client = laboratory.client(CANDY_PASSWORD="another")
    client.wait_for("WARNING the relay closed without a reason right after the handshake: is the password right?")


def test_a_full_network_and_a_full_pool(laboratory: Laboratory) -> None:
    relay = laboratory.relay("-d", "192.168.202.0/30")
    clients = [laboratory.client() for _ in range(2)]
    for client in clients:
        client.connected()
    late = laboratory.client()
    late.wait_for(
        r"refused by the relay: the pool 192\.168\.202\.0/30 is full: all 2 addresses .*: wait until a member"
    )
    for client in (*clients, late):
        client.close()
    relay.close()
    laboratory.relay("-d", "192.168.202.0/29", "--max-members", "1")
    laboratory.client(host=clients[0].host).connected()
    late = laboratory.client(host=late.host)
    late.wait_for("refused by the relay: the network is full: 1 members are in: wait, or raise the limit there")


def test_a_relay_that_ends_says_so(laboratory: Laboratory) -> None:
    relay = laboratory.relay()
    client = laboratory.client()
    client.connected()
    relay.signal(signal.SIGTERM)
    client.wait_for("closed by the relay: the relay ends; trying again in 1")


def clones(laboratory: Laboratory, *flags: str) -> tuple[Client, Client]:
    """Two machines with one state folder's content, of which the first is in; the second has come and replaced it."""
    first = laboratory.client(*flags)
    address = first.connected()
    first.signal(signal.SIGKILL)
    first.wait()
    there = laboratory.host()
    shutil.copytree(laboratory.state(first.host), laboratory.state(there))
    first = laboratory.client(*flags, host=first.host)
    assert first.connected() == address
    second = laboratory.client(*flags, host=there)
    assert second.connected() == address
    first.wait_for(
        f"WARNING replaced: another connection with the same VMAC took {address} over: is there a copy of this "
        "machine, or of its state folder. If so, remove the file in the vmac folder of one of them; trying again in"
    )
    return first, second


def test_a_clone_gets_an_address_of_its_own_and_nobody_fights(laboratory: Laboratory) -> None:
    """F10: "both fight, neither is told why": 5 + 5 connects in 37 s."""
    relay = laboratory.relay()
    first, second = clones(laboratory)
    moved = first.connected(len(first.lines))
    assert moved != second.connected()
    # Both are in, and stay in.
    first.host.run("ping", "-c", "2", "-W", "10", second.connected())
    second.host.run("ping", "-c", "2", "-W", "10", moved)
    replacement = f"replaced at {second.connected()} by {second.host.address}"
    assert len([line for line in relay.lines if replacement in line]) == 1
    assert [line for line in second.lines if "trying again" in line] == []
    assert len([line for line in first.lines if "trying again" in line]) == 1


def test_clones_with_an_address_of_their_own_are_told_of_and_back_off(laboratory: Laboratory) -> None:
    relay = laboratory.relay()
    first, second = clones(laboratory, "-t", "192.168.202.5/24")
    # The first comes back, not at once, and now the relay knows as well.
    first.wait_for("replaced: .*; trying again in ([89]|1[0-2])")
    second.wait_for("replaced: another connection with the same VMAC")
    relay.wait_for(
        r"WARNING .*: replaced 192\.168\.202\.5 again within 60 s: two machines use this VMAC: "
        r"remove its file from the state folder of one of them \(VMAC [0-9a-f]{16}\)"
    )
