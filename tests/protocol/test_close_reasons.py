"""What a peer writes as the reason of its close frame goes nowhere: not into an event, an answer or a log.

"When an endpoint is to interpret a byte stream as UTF-8 but finds that the byte stream is not, in fact, a valid UTF-8
stream" it fails the connection with 1007 (RFC 6455, section 8.1). Nobody here interprets a reason, so none is judged.
"""

import struct
from pathlib import Path

import pytest
from kit.peer import CLOSE, EngineRelay
from lab.member import Member
from lab.programs import RelayProgram

REASONS = [
    b"\x1b[2J\x1b]0;gotcha\x07\r\nINFO gotcha",
    b"gotcha \xff\xfe\xc0\xaf\xed\xa0\x80",
    b"gotcha\x00" * 17,
]


@pytest.mark.parametrize("reason", REASONS)
@pytest.mark.parametrize("client", [False, True])
def test_python_hears_the_cause_alone(reason: bytes, client: bool) -> None:
    with EngineRelay() as relay:
        peer = relay.adopt(client=client)
        peer.send(CLOSE, struct.pack(">H", 1000) + reason)
        assert [(f.opcode, f.payload) for f in peer.receive_all()] == [(CLOSE, struct.pack(">H", 1000))]
        assert relay.cause(peer.connection) == "peer"
        assert [detail for _, _, detail in relay.events] == [b"peer"]


def test_the_relay_logs_none(tmp_path: Path) -> None:
    with RelayProgram(tmp_path) as relay:
        for number, reason in enumerate(REASONS, 1):
            with Member.connect(relay.address) as member:
                member.log_in(f"192.168.202.{number}")
                member.send(struct.pack(">H", 1000) + reason, CLOSE)
                assert member.end() == 1000
            relay.wait_for(f"192.168.202.{number} logged out")
        lines = "".join(relay.lines)
    assert "gotcha" not in lines
    assert lines.isprintable()
