"""Packets to groups where some members have a secret: who gets them, and what the relay sees."""

import socket
import struct
import time

import pytest
from lab.capture import Capture
from lab.control import Control
from lab.laboratory import PORT, Client, Laboratory
from lab.programs import PATIENCE_S, control_of

from candy.protocol.secret import MARK

pytestmark = pytest.mark.netns

MULTICAST, BROADCAST = "239.1.2.3", "255.255.255.255"
UDP_PORT = 4000
SEALED, CLEAR = b"sealed for a group. " * 4, b"in the clear. " * 4


def listen(member: Client, address: str) -> socket.socket:
    """For what comes to a group through its tunnel."""
    with member.host:
        opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    opened.bind(("", UDP_PORT))
    opened.settimeout(PATIENCE_S)
    joined = socket.inet_aton(MULTICAST) + socket.inet_aton(address)
    opened.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, joined)
    return opened


def heard(ear: socket.socket, own: str) -> tuple[bytes, str]:
    """The next one, and who it is from. A kernel hears what it says to all itself."""
    while True:
        data, (source, _) = ear.recvfrom(2000)
        if source != own:
            return data, source


def say(member: Client, address: str, data: bytes) -> None:
    """To all groups there are."""
    with member.host:
        opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with opened:
        opened.bind((address, 0))
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"candy")
        for group in (MULTICAST, BROADCAST):
            opened.sendto(data, (group, UDP_PORT))


def counted(laboratory: Laboratory, member: Client, **least: int) -> None:
    """Return once a member has dropped so many, by reason. Its kernel says something to groups as well."""
    deadline, found = time.monotonic() + PATIENCE_S, dict[str, int]()
    with Control("member", control_of(laboratory.state(member.host))) as control:
        while any(found.get(reason, 0) < count for reason, count in least.items()):
            assert time.monotonic() < deadline, found
            found = control.ask("GET", "/v1/status")["drops_by_reason"]


def test_under_a_secret_all_members_with_it_get_them_and_the_relay_sees_nothing(laboratory: Laboratory) -> None:
    secret = laboratory.folder / "secret"
    secret.write_text(f"{MARK}{'A' * 43}\n")
    secret.chmod(0o600)
    laboratory.relay()
    one, other = (laboratory.client("--secret", str(secret)) for _ in range(2))
    without, off = laboratory.client("--seal", "require"), laboratory.client("--seal", "off")
    addresses = {member: member.connected() for member in (one, other, without, off)}
    ears = {member: listen(member, address) for member, address in addresses.items()}
    capture = Capture(laboratory.hub, laboratory.folder, f"tcp and port {PORT}", interface="bridge0", most=0)
    laboratory.enter(capture.program)
    for speaker, listener in ((one, other), (other, one)):
        said = SEALED + struct.pack(">I", int(speaker is one))
        say(speaker, addresses[speaker], said)
        for _ in (MULTICAST, BROADCAST):
            assert heard(ears[listener], addresses[listener]) == (said, addresses[speaker])
    # Who has no secret gets nothing of it, and under require says nothing. The capture has what is in the clear.
    say(without, addresses[without], SEALED)
    say(off, addresses[off], CLEAR)
    counted(laboratory, without, no_secret=4, group_not_sealed=4)
    counted(laboratory, other, group_not_sealed=2)
    seen = b"".join(data for _, _, data in capture.stop())
    assert CLEAR in seen
    assert SEALED[:20] not in seen
    for member, ear in ears.items():
        ear.setblocking(False)
        with ear, pytest.raises(BlockingIOError):
            heard(ear, addresses[member])
