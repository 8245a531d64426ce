"""Sessions of clients that were there before this relay, played at the wire: how they log in, stay, and come back.

A test that begins with "field:" shows one of the remarks of that name in the protocol's description, as far as it is
the relay's: how existing peers behave, which is not for us to choose.
"""

import hashlib
import time
from contextlib import ExitStack
from ipaddress import IPv4Address
from itertools import islice

import pytest
from kit.peer import PING, PONG
from lab.member import Speaker
from lab.oldclient import HELLO, OldClient, exchange
from lab.programs import PASSWORD, RelayProgram

from candy.protocol import wire

pytestmark = pytest.mark.usefixtures("nobody_else_is_disturbed")


@pytest.mark.parametrize("fixed", [None, "192.168.202.20"])
@pytest.mark.parametrize("vmac", [True, False])
def test_a_session_of_an_old_client(relay: RelayProgram, stack: ExitStack, vmac: bool, fixed: str | None) -> None:
    """field: clients before 2024 send no VMAC.

    Dynamic or fixed, the conversation is the same but for what is left out.
    """
    client = stack.enter_context(OldClient.connect(relay.address))
    peer = stack.enter_context(OldClient.connect(relay.address))
    client.log_in_as_original(vmac, fixed)
    peer.log_in_as_original(vmac=not vmac, fixed=None)
    exchange(client, peer)


@pytest.mark.parametrize("vmac", [bytes(16), b"0" * 16])
def test_an_all_zero_vmac_is_none(relay: RelayProgram, stack: ExitStack, vmac: bytes) -> None:
    """field: an all-zero VMAC means none.

    So nobody comes back by it, and none replaces another.
    """
    first = stack.enter_context(OldClient.connect(relay.address, vmac=vmac))
    granted = first.log_in_as_original(vmac=True, fixed=None)
    second = stack.enter_context(OldClient.connect(relay.address, vmac=vmac))
    second.send(second.greeting(OldClient.now()))
    assert str(second.ask(f"{granted}/24").ip) != granted
    second.send(second.auth(granted, OldClient.now()))
    opcode, payload = first.receive()
    assert (opcode, payload[:12]) == (PING, b"candy-probe:")
    assert second.end() is None
    first.settle()
    first.close()
    third = stack.enter_context(OldClient.connect(relay.address, vmac=vmac))
    third.send(third.greeting(OldClient.now()))
    assert str(third.ask().ip) != granted


def test_clients_of_one_host_share_a_vmac(relay: RelayProgram, stack: ExitStack) -> None:
    """field: several original clients on one host share one VMAC.

    Each has an address of its own, and comes back to it when it asks for it.
    """
    vmac = b"00000000feedbee1"
    clients = [stack.enter_context(OldClient.connect(relay.address, vmac=vmac)) for _ in range(3)]
    ips = [client.log_in_as_original(vmac=True, fixed=None) for client in clients]
    assert len(set(ips)) == 3
    exchange(clients[0], clients[1])
    clients[0].close()
    back = stack.enter_context(OldClient.connect(relay.address, vmac=vmac))
    back.send(back.greeting(OldClient.now()))
    assert str(back.ask(f"{ips[0]}/24").ip) == ips[0]
    back.log_in(ips[0], OldClient.now())
    exchange(back, clients[2])
    for client in clients[1:]:
        client.settle()


def test_the_answer_to_a_request_can_be_believed(relay: RelayProgram, stack: ExitStack) -> None:
    """field: old clients don't check that hash; ours does.

    So every answer carries a fresh timestamp and the hash over it.
    """
    client = stack.enter_context(OldClient.connect(relay.address))
    long_ago = int(time.time()) - 200
    client.send(client.request("0.0.0.0/0", long_ago))
    answer = wire.decode(client.receive_message())
    assert isinstance(answer, wire.Expttun)
    assert abs(answer.timestamp - time.time()) < 100
    covered = PASSWORD.encode() + answer.timestamp.to_bytes(8, "big")
    assert answer.digest == hashlib.sha256(covered).digest()


def test_two_clients_in_the_same_second(relay: RelayProgram, stack: ExitStack) -> None:
    """The same EXPTTUN bytes on two connections are no replay: "it covers password and time alone"."""
    request = Speaker().request("0.0.0.0/0")
    ips = []
    for _ in range(2):
        client = stack.enter_context(OldClient.connect(relay.address))
        client.send(request)
        answer = wire.decode(client.receive_message())
        assert isinstance(answer, wire.Expttun)
        ips.append(str(answer.address.ip))
        client.log_in(ips[-1], OldClient.now())
    assert ips[0] != ips[1]


def test_a_vmac_behind_the_request_for_an_address(relay: RelayProgram, stack: ExitStack) -> None:
    """Out of order, and still known by it when it comes back."""
    vmac = b"00000000feedbee2"
    client = stack.enter_context(OldClient.connect(relay.address, vmac=vmac))
    granted = client.ask()
    client.send(client.greeting(OldClient.now()))
    client.log_in(str(granted.ip), OldClient.now())
    start = len(relay.lines)
    client.close()
    relay.wait_for(f"{granted.ip} logged out", start)
    back = stack.enter_context(OldClient.connect(relay.address, vmac=vmac))
    back.send(back.greeting(OldClient.now()))
    assert back.ask() == granted


def test_a_request_and_a_vmac_behind_auth(relay: RelayProgram, stack: ExitStack) -> None:
    """Too late: dropped, not answered, and the session goes on."""
    client = stack.enter_context(OldClient.connect(relay.address)).log_in("192.168.202.21", OldClient.now())
    before = relay.counters()
    client.send(client.request("0.0.0.0/0", OldClient.now()))
    client.send(client.greeting(OldClient.now()))
    client.settle()
    after = relay.counters() - before
    assert (after["dropped expttun_after_auth"], after["dropped vmac_after_auth"]) == (1, 1)


@pytest.mark.parametrize("second", ["192.168.202.22", "192.168.202.23"])
def test_a_second_auth(relay: RelayProgram, stack: ExitStack, second: str) -> None:
    """field: the original disconnects or crashes here.

    "The first binding stays, the second is dropped and counted."
    """
    client = stack.enter_context(OldClient.connect(relay.address)).log_in("192.168.202.22", OldClient.now())
    peer = stack.enter_context(OldClient.connect(relay.address)).log_in("192.168.202.24", OldClient.now())
    before = relay.counters()["dropped second_auth"]
    client.send(client.auth(second, OldClient.now()))
    exchange(client, peer)
    client.settle()
    assert relay.counters()["dropped second_auth"] - before == 1


def test_an_old_clients_pings(relay: RelayProgram, stack: ExitStack) -> None:
    """field: the client sends PING right after AUTH, and then each second; it answers a server's PING with the same
    bytes.

    Ours are answered with the same payload too, not with the original server's 1500 bytes.
    """
    client = stack.enter_context(OldClient.connect(relay.address))
    client.send(client.auth("192.168.202.25", OldClient.now()))
    for number in range(30):
        client.send(HELLO + b"%d" % number, PING)
    # On a busy machine the relay has pinged it meanwhile.
    answers = (frame for frame in iter(client.receive, None) if frame[0] != PING)
    assert list(islice(answers, 30)) == [(PONG, HELLO + b"%d" % number) for number in range(30)]
    client.ip = IPv4Address("192.168.202.25")
    # Whatever else a PONG may be, it is no answer to anything.
    client.send(HELLO, PONG)
    client.settle()


def test_a_client_that_comes_back(relay: RelayProgram, stack: ExitStack) -> None:
    """field: after any end a client waits 1 s and starts again from step 1.

    With its address and the next second's timestamp, while its old connection still looks alive.
    """
    vmac = b"00000000feedbee3"
    now = OldClient.now()
    old = stack.enter_context(OldClient.connect(relay.address, vmac=vmac))
    old.send(old.greeting(now))
    ip = str(old.ask("192.168.202.26/24").ip)
    old.log_in(ip, now)
    peer = stack.enter_context(OldClient.connect(relay.address)).log_in("192.168.202.27", OldClient.now())
    new = stack.enter_context(OldClient.connect(relay.address, vmac=vmac))
    now = OldClient.now()
    new.send(new.greeting(now))
    assert str(new.ask(f"{ip}/24").ip) == ip
    new.log_in(ip, now)
    assert old.end() == 4001
    exchange(new, peer)


def test_a_client_without_vmac_that_comes_back(relay: RelayProgram, stack: ExitStack) -> None:
    """While its old connection looks alive it is granted another address; a fixed one it gets when the old one is
    silent, after the relay's 3 s, which are awaited."""
    old = stack.enter_context(OldClient.connect(relay.address))
    ip = old.log_in_as_original(vmac=False, fixed=None)
    old.answers_pings = False
    new = stack.enter_context(OldClient.connect(relay.address))
    assert str(new.ask(f"{ip}/24").ip) != ip
    new.send(new.auth(ip, OldClient.now()))
    new.send(HELLO, PING)
    # It can't tell that it waits.
    assert new.receive() == (PONG, HELLO)
    assert old.end() == 4001
    new.ip = IPv4Address(ip)
    new.settle()


def test_a_holder_of_another_installation(relay: RelayProgram, stack: ExitStack) -> None:
    """field: the original kicks the earlier holder in any case; cacao refuses when the holder has another VMAC.

    Here a holder that answers keeps its address.
    """
    holder = stack.enter_context(OldClient.connect(relay.address, vmac=b"00000000feedbee4"))
    ip = holder.log_in_as_original(vmac=True, fixed="192.168.202.28")
    newcomer = stack.enter_context(OldClient.connect(relay.address, vmac=b"00000000feedbee5"))
    newcomer.send(newcomer.greeting(OldClient.now()))
    newcomer.send(newcomer.auth(ip, OldClient.now()))
    assert holder.receive()[0] == PING
    assert newcomer.end() is None
    holder.settle()
