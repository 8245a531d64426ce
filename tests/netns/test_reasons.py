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
    client.wait_for(r"WARNING the relay closed without a word: is the password right\?")


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
        f"WARNING replaced: another connection with the same key took {address} over: is there a copy of this "
        "machine, or of its state folder. If so, remove the file in the device folder of one of them, and have it join "
        "anew; trying again in"
    )
    return first, second


@pytest.mark.parametrize("flags", [[], ["-t", "192.168.202.5/24"]])
def test_clones_are_told_of_and_back_off(laboratory: Laboratory, flags: list[str]) -> None:
    """F10: "both fight, neither is told why": 5 + 5 connects in 37 s. They have one key, and so one lease."""
    relay = laboratory.relay()
    first, second = clones(laboratory, *flags)
    # The first comes back, not at once, and now the relay knows as well.
    first.wait_for("replaced: .*; trying again in ([89]|1[0-2])")
    second.wait_for("replaced: another connection with the same key")
    relay.wait_for(
        r"WARNING .*: replaced [0-9.]+ again within 60 s: two machines use this key: "
        r"remove its file from the state folder of one of them "
    )
