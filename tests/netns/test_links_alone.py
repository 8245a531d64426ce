"""Direct links while the relay is away: sessions go on, with new keys again and again.

CANDY_AWAY_S: the relay is away for so many seconds, with sessions of the usual length (`make soak`). Without it they
last a few seconds, and so does the test.
"""

import os
import signal
from pathlib import Path

import pytest
from lab.control import Control
from lab.laboratory import Client, Laboratory
from lab.linked import EACH_S, Pair, Pinging
from lab.originalpeer import OriginalPeer
from lab.programs import RelayProgram, environment
from lab.traffic import connect

pytestmark = pytest.mark.netns

AWAY_S = float(os.environ.get("CANDY_AWAY_S", "0"))
OPEN_S = 6.0
SHORT = f"""
from candy.sealing import slots
slots.REKEY_SENT_S, slots.REKEY_RECEIVED_S, slots.REKEY_EITHER_S = 3.0, 4.0, 4.5
slots.SEND_S, slots.OPEN_S = 5.0, {OPEN_S}
"""
OLD = "192.168.202.77"
WORD_S = 2.0
NO_RELAY = "table inet no_relay { chain o { type filter hook output priority 0; tcp flags syn reject; }; }"
NO_UDP = """table inet no_udp {
    chain i { type filter hook input priority 0; meta l4proto udp drop; }
    chain o { type filter hook output priority 0; meta l4proto udp drop; }
}"""
EACH_BLOCK = 10
"""Answers between two blocks of the stream."""


@pytest.mark.timeout(300 + 2 * AWAY_S)
def test_the_relay_is_gone_under_a_stream(laboratory: Laboratory, tmp_path: Path) -> None:
    """For longer than two sessions last."""
    environ = {}
    if not AWAY_S:
        (tmp_path / "sitecustomize.py").write_text(SHORT)
        environ["PYTHONPATH"] = f"{tmp_path}:{environment(tmp_path)['PYTHONPATH']}"
    relay = laboratory.relay()
    pair = Pair(laboratory, (laboratory.host(), laboratory.host()), **environ)
    pair.start()
    pair.until(path="direct")
    since, lines = len(pair.answered()), len(pair.one.lines)
    near, far = connect(pair.one.host, pair.other.host, pair.its)
    with near, far:

        def stream(seconds: float) -> None:
            for number in range(round(seconds / EACH_S / EACH_BLOCK)):
                block = number.to_bytes(4, "big") * 5000
                near.sendall(block)
                received = bytearray()
                while len(received) < len(block):
                    received += far.recv(len(block) - len(received))
                assert received == block
                pair.wait(EACH_BLOCK)

        relay.signal(signal.SIGKILL)
        relay.wait()
        pair.one.wait_for("connection refused", lines)
        stream(AWAY_S or 2.5 * OPEN_S)
        pair.until(path="direct")
        after = [len(client.lines) for client in (pair.one, pair.other)]
        laboratory.relay()
        for client, at in zip((pair.one, pair.other), after, strict=True):
            client.connected(at)
        stream(3)
    pair.until(path="direct")
    print(f"longest gap: {pair.longest_gap(since):.2f} s")
    assert pair.longest_gap(since) < 5
    assert not pair.left(lines)


def cut_off(relay: RelayProgram, client: Client, address: str) -> None:
    """Have it lose the relay for good, which knows so at once, and has others know."""
    client.host.run("nft", NO_RELAY)
    with Control("relay", relay.control) as control:
        control.ask("POST", f"/v1/members/{address}/kick")


def test_who_has_lost_the_relay_keeps_its_links(laboratory: Laboratory, tmp_path: Path) -> None:
    """First one, whose link has a pause that the other takes for its end; then the other one, too, whose link with an
    old client goes on when what the relay said of that one was said long ago: WORD_S here."""
    (tmp_path / "sitecustomize.py").write_text(f"from candy.sealing import ways\nways.ASK_S = {WORD_S}\n")
    path = f"{tmp_path}:{environment(tmp_path)['PYTHONPATH']}"
    relay = laboratory.relay()
    pair = Pair(laboratory, (laboratory.host(), laboratory.host()), PYTHONPATH=path)
    pair.start()
    pair.until(path="direct")
    one, other = pair.one, pair.other
    with OriginalPeer(laboratory.host(), OLD, pair.address, begins=False) as original:
        old = Pinging(laboratory, one, OLD)
        old.start()
        old.until(path="direct", format="original")
        cut_off(relay, other, pair.its)
        pair.wait(20)
        lines = len(one.lines)
        other.host.run("nft", NO_UDP)
        one.wait_for(f"{pair.its} is reached by the relay", lines)
        other.host.run("nft", "delete table inet no_udp")
        pair.until(path="direct")
        pair.wait(20)
        cut_off(relay, one, pair.address)
        by_udp, answers = original.by_udp, round(2 * WORD_S / EACH_S)
        old.wait(answers)
        pair.wait(20)
        assert original.by_udp - by_udp >= answers
        assert [each["path"] for each in [*pair.links, *old.links]] == ["direct"] * 3
