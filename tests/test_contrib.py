"""What the files of contrib/ say they are enough for: 10,000 members, by what each costs."""

import re
from pathlib import Path

from candy.relay.listen import BACKLOG

CONTRIB = Path(__file__).parent.parent / "contrib"
DOCUMENT = Path(__file__).parent.parent / "docs/relay-for-many.md"
MEMBERS = 10_000
CONNECTIONS_EACH = 2
"""Of a member in the web server: its own, and that to the relay. Each is a descriptor."""
DESCRIPTORS_BESIDE = 100
"""Listeners, logs, epoll."""
EPHEMERAL_PORTS = 60999 - 32768 + 1
"""Linux's, for connections from the web server to the relay: all of one address to one port."""
STATE_BYTES = {"limit_conn_zone": 64, "limit_req_zone": 128}
"""Of one address, on 64 bits, by nginx's documents of the two modules."""


def number(pattern: str, text: str) -> int:
    found = re.search(pattern, text, re.MULTILINE)
    assert found is not None, pattern
    return int(found[1])


def test_nginx() -> None:
    text = (CONTRIB / "nginx.conf").read_text()
    for configuration in (text, DOCUMENT.read_text()):
        connections = number(r"worker_connections (\d+);", configuration)
        # All may fall to one worker.
        assert connections >= MEMBERS * CONNECTIONS_EACH
        assert number(r"worker_rlimit_nofile (\d+);", configuration) >= connections + DESCRIPTORS_BESIDE
    assert number(r"listen 443 ssl backlog=(\d+);", text) == BACKLOG
    for zone, each in STATE_BYTES.items():
        megabytes = number(rf"{zone} \S+ zone=\w+:(\d+)m", text)
        assert megabytes * 2**20 // each >= MEMBERS


def test_haproxy() -> None:
    text = (CONTRIB / "haproxy.cfg").read_text()
    most = number(r"^    maxconn (\d+)$", text)
    assert most >= MEMBERS
    assert number(r"server relay \S+ check inter \S+ maxconn (\d+)$", text) >= most
    assert number(r"backlog (\d+)$", text) == BACKLOG
    assert number(r"stick-table type ipv6 size (\d+)k", text) * 1000 >= MEMBERS
    # What its unit has to allow stands beside it.
    assert number(r"LimitNOFILE of its unit is (\d+)", text) >= most * CONNECTIONS_EACH + DESCRIPTORS_BESIDE


def test_caddy() -> None:
    """It has no limit but that of descriptors."""
    text = (CONTRIB / "Caddyfile").read_text()
    assert number(r"LimitNOFILE=(\d+)", text) >= MEMBERS * CONNECTIONS_EACH + DESCRIPTORS_BESIDE


def test_the_way_to_the_relay() -> None:
    """One address, one port of the relay: each member's connection takes a port of its own."""
    assert MEMBERS <= EPHEMERAL_PORTS
