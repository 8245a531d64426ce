"""What members send each other sealed: nothing of it is the relay's to read, it ends with a device, and keys change."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from lab.capture import Capture
from lab.control import Control, drops_of, sealing_of
from lab.laboratory import Client, Laboratory
from lab.markers import found, marker, memory_of
from lab.programs import PATIENCE_S, environment
from lab.traffic import MEGABYTE, connect, datagram_sockets, ping, transfer

pytestmark = pytest.mark.netns

MARKERS = 50
"""How often each goes each way."""
SESSIONS = 3
LOST = {"no_session", "unknown_session", "replayed", "bad_seal", "bad_handshake", "handshake_limit", "not_sealed"}
"""What rekeying could be to blame for."""
QUICK = """
import candy.sealing.slots as slots
# In place of two minutes; a member looks at its sessions once a second.
slots.REKEY_SENT_S, slots.REKEY_RECEIVED_S, slots.REKEY_EITHER_S = 0.5, 2.5, 3.0
slots.SEND_S, slots.OPEN_S = 8.0, 12.0
def counted(begin):
    def count(self, session):
        print("a session begins", flush=True)
        return begin(self, session)
    return count
slots.Slots.initiated, slots.Slots.answered = counted(slots.Slots.initiated), counted(slots.Slots.answered)
"""


def exchange_markers(here: Client, there: Client) -> list[bytes]:
    """Texts that both have sent each other, by TCP and UDP."""
    own, other = here.connected(), there.connected()
    texts = [marker() for _ in range(4)]
    near, far = connect(here.host, there.host, other)
    udp_near, udp_far = datagram_sockets(here.host, there.host, own, other)
    with near, far, udp_near, udp_far:
        for number in range(MARKERS):
            # Wherever it lies within a mask, and in a buffer behind what shorter packets overwrite.
            lead = bytes(21 * number)
            for source, destination, text in ((near, far, texts[0]), (far, near, texts[1])):
                source.sendall(lead + text)
                assert destination.recv(4096, 0x100) == lead + text
            for source, destination, text in ((udp_near, udp_far, texts[2]), (udp_far, udp_near, texts[3])):
                source.sendto(lead + text, destination.getsockname())
                assert destination.recv(4096) == lead + text
    return texts


@pytest.mark.parametrize("seal", ["prefer", "off"])
def test_no_byte_is_on_the_relays_links_or_in_its_memory(laboratory: Laboratory, tmp_path: Path, seal: str) -> None:
    """Where nothing is sealed the same search finds them in all three."""
    relay = laboratory.relay()
    here, there = (laboratory.client("--seal", seal) for _ in range(2))
    for client in (here, there):
        client.connected()
    ports = [client.host.port for client in (here, there)]
    links = [Capture(laboratory.hub, tmp_path, "tcp", interface=port, most=0) for port in ports]
    with links[0].program, links[1].program:
        texts = exchange_markers(here, there)
        in_memory = found(texts, memory_of(relay.pid))
        captured = [found(texts, [link.content()]) for link in links]
    ways = [sealing_of(one.control, other.connected())[0] for one, other in ((here, there), (there, here))]
    if seal == "off":
        assert captured == [set(texts)] * 2
        # Of what a buffer held last.
        assert in_memory
    else:
        assert ways == ["sealed"] * 2
        assert captured == [set()] * 2
        assert in_memory == set()


@contextmanager
def streaming(here: Client, there: Client, address: str) -> Iterator[None]:
    """Bytes by TCP, both ways, as many as go, to the end of the block or of what carries them."""
    ends = connect(here.host, there.host, address)
    over = threading.Event()

    def send(end: Any) -> None:
        with suppress(OSError):
            while not over.is_set():
                end.sendall(bytes(1 << 16))

    def receive(end: Any) -> None:
        with suppress(OSError):
            while end.recv(1 << 20):
                pass

    threads = [threading.Thread(target=act, args=(end,)) for end in ends for act in (send, receive)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for end in ends:
            with suppress(OSError):
                end.shutdown(2)
        for thread in threads:
            thread.join(PATIENCE_S)
        for end in ends:
            end.close()


def test_a_revocation_ends_a_transfer(laboratory: Laboratory) -> None:
    """The device's connection, and at its peer the session: that one sends it nothing more."""
    relay = laboratory.relay()
    here, there = laboratory.client(), laboratory.client()
    own, other = here.connected(), there.connected()
    at_relay = laboratory.stack.enter_context(Control("relay", relay.control))
    [device] = [each for each in at_relay.ask("GET", "/v1/devices")["devices"] if each["address"] == own]
    with streaming(here, there, other):
        before = relay.counters()
        while (relay.counters() - before)["bytes_in"] < MEGABYTE:
            pass
        assert sealing_of(there.control, own)[0] == "sealed"
        began = time.monotonic()
        at_relay.ask("POST", f"/v1/devices/{device['number']}/revoke")
        while sealing_of(there.control, own)[0] == "sealed":
            assert time.monotonic() < began + PATIENCE_S
        print(f"its peer sends it nothing more {time.monotonic() - began:.2f} s after the command")
        assert here.wait() == 1
        assert "this device was revoked" in here.lines[-1]
        print(f"and it has ended after {time.monotonic() - began:.2f} s")
    assert sealing_of(there.control, own)[0] == "no route"
    before, dropped = relay.counters(), drops_of(there.control)["no_route"]
    assert " 100% packet loss" in ping(there.host, own, "-W", "1")
    assert (relay.counters() - before)["packets_in"] == 0
    assert drops_of(there.control)["no_route"] >= dropped + 3


def test_rekeying_under_a_full_stream_loses_nothing(laboratory: Laboratory, tmp_path: Path) -> None:
    """With other times than the programs have, but for that they are as they are."""
    (tmp_path / "sitecustomize.py").write_text(QUICK)
    path = f"{tmp_path}:{environment(tmp_path)['PYTHONPATH']}"
    laboratory.relay()
    here, there = laboratory.client(PYTHONPATH=path), laboratory.client(PYTHONPATH=path)
    own, other = here.connected(), there.connected()
    with streaming(here, there, other):
        for client in (here, there):
            while sum("a session begins" in line for line in list(client.lines)) < SESSIONS:
                client.wait_for("a session begins", len(client.lines))
    assert transfer(here.host, there.host, other, MEGABYTE) == own
    for client, address in ((here, other), (there, own)):
        assert sealing_of(client.control, address)[0] == "sealed"
        assert not LOST & drops_of(client.control).keys()
