"""Limits between real members, TUN to TUN: set while they are in, and seen where an operator looks."""

from contextlib import ExitStack
from pathlib import Path

import pytest
from lab.control import Control
from lab.laboratory import Laboratory
from lab.traffic import connect

pytestmark = pytest.mark.netns

LEFT, RIGHT = "192.168.202.5", "192.168.202.6"


@pytest.mark.parametrize(("direction", "limited"), [("down", RIGHT), ("up", LEFT)])
def test_a_transfer_is_held_and_goes_on_when_the_limit_is_lifted(
    direction: str, limited: str, tmp_path: Path, stack: ExitStack
) -> None:
    laboratory = Laboratory(stack, tmp_path)
    relay = laboratory.relay()
    clients = [laboratory.client("-t", f"{address}/24") for address in (LEFT, RIGHT)]
    for client in clients:
        client.connected()
    control = stack.enter_context(Control("relay", relay.control))
    control.ask("POST", f"/v1/leases/{limited}/limits", {direction: 1_000_000})
    sender, receiver = connect(clients[0].host, clients[1].host, RIGHT)
    with sender, receiver:
        sender.setblocking(False)
        held = None
        while held is None:
            # As much as the sockets take, so that something always waits.
            try:
                while sender.send(bytes(65536)):
                    pass
            except BlockingIOError:
                held = control.ask("GET", f"/v1/members/{limited}")["held"]
        assert held == direction
        why = control.ask("GET", f"/v1/why/{LEFT}/{RIGHT}")
        assert (why["verdict"], "1000000 bits/s" in why["answer"]) == ("limit", True)
        control.ask("POST", f"/v1/leases/{limited}/limits", {"as_network": True})
        sender.setblocking(True)
        sender.sendall(b"the end")
        sender.shutdown(1)
        last = b""
        while piece := receiver.recv(65536):
            last = (last + piece)[-7:]
        assert last == b"the end"
    assert [sum("connected as" in line for line in client.lines) for client in clients] == [1, 1]
