"""A member that says it is reached where somebody else is: that one gets a few probes, and nobody's packets."""

import select
import socket
import struct
import threading
import time
from types import TracebackType
from typing import Self

import pytest
from lab.laboratory import Laboratory
from lab.linked import Pair
from lab.namespaces import Host
from lab.traffic import MEGABYTE, ping, transfer

from candy.member.trial import AGAIN_S, FIRST_S
from candy.protocol.linking import HEADERS, ID_BYTES, OVERHEAD, probe

pytestmark = pytest.mark.netns

ECHO = 7
PORTS = (ECHO, 7001, 7002)
PROBE = HEADERS[4] + OVERHEAD + len(probe(bytes(ID_BYTES), 0))
"""Bytes of an IP packet with the shortest probe: any other one would be of an address that has answered."""
OTHERS = 3
"""Probes of an address behind its first, and for what has happened, before it may have the first again."""


class Bystander:
    """Has all that comes to it by UDP counted, and sends back what comes to its port ECHO."""

    def __init__(self, host: Host) -> None:
        self.lengths: list[int] = []
        """Of IP packets."""
        with host:
            self._raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)
            self._echo = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 * MEGABYTE)
        self._echo.bind((host.address, ECHO))
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="bystander", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._raw.close()
        self._echo.close()

    def _listen(self) -> None:
        while not self._ended.is_set():
            if not select.select([self._raw], [], [], 0.05)[0]:
                continue
            packet = self._raw.recv(65536)
            self.lengths.append(len(packet))
            source, port, to = packet[12:16], *struct.unpack_from(">HH", packet, 20)
            if to == ECHO:
                self._echo.sendto(packet[28:], (socket.inet_ntoa(source), port))


def test_who_is_claimed_gets_probes_alone(laboratory: Laboratory) -> None:
    """While the members have a link, and when they have none. What is sent back to them is no answer."""
    laboratory.relay()
    hosts = [laboratory.host() for _ in range(2)]
    claimed = laboratory.host()
    flags = [word for port in PORTS for word in ("--endpoint", f"{claimed.address}:{port}")]
    began = time.monotonic()
    with Bystander(claimed) as bystander:
        pair = Pair(laboratory, hosts, others=flags)
        pair.start()
        there, _ = pair.until(path="direct")
        assert str(there["endpoint"]).startswith(f"{hosts[1].address}:")
        transfer(hosts[0], hosts[1], pair.its, MEGABYTE)
        for host in hosts:
            laboratory.hub.run("bridge", "link", "set", "dev", host.port, "isolated", "on")
        pair.until(path="relay")
        transfer(hosts[0], hosts[1], pair.its, MEGABYTE)
        assert " 0% packet loss" in ping(hosts[0], pair.its, "-s", "1372", "-M", "do")
        pair.until(path="relay", why="no path found")
        pair.wait(40)
    took_s = time.monotonic() - began
    print(f"{len(bystander.lengths)} probes in {took_s:.1f} s")
    assert set(bystander.lengths) == {PROBE}
    assert len(bystander.lengths) <= len(PORTS) * (1 + len(FIRST_S) + OTHERS) * (1 + took_s / AGAIN_S)
