"""What a peer writes as the reason of its close frame: a relay's goes to the member as it is, for printable ASCII to be
made of it; a member's goes nowhere, neither into an event nor an answer nor a log.

"When an endpoint is to interpret a byte stream as UTF-8 but finds that the byte stream is not, in fact, a valid UTF-8
stream" it fails the connection with 1007 (RFC 6455, section 8.1). Nobody here interprets a reason, so none is judged.
"""

import struct
from pathlib import Path

import pytest
from kit.peer import CLOSE, EngineRelay
from lab.member import Member
from lab.programs import RelayProgram

from candy import _fastpath
from candy.protocol import closing

REASONS = [
    b"\x1b[2J\x1b]0;gotcha\x07\r\nINFO gotcha",
    b"gotcha \xff\xfe\xc0\xaf\xed\xa0\x80",
    b"gotcha\x00" * 17,
]


@pytest.mark.parametrize("reason", REASONS)
@pytest.mark.parametrize("client", [False, True])
def test_a_client_hears_the_reason_and_a_server_the_cause_alone(reason: bytes, client: bool) -> None:
    with EngineRelay() as relay:
        peer = relay.adopt(client=client)
        peer.send(CLOSE, struct.pack(">H", 1000) + reason)
        assert [(f.opcode, f.payload) for f in peer.receive_all()] == [(CLOSE, struct.pack(">H", 1000))]
        assert relay.cause(peer.connection) == "peer"
        told = [(_fastpath.EVENT_CLOSING, struct.pack(">H", 1000) + reason)] if client else []
        *before, (kind, detail) = [(kind, detail) for _, kind, detail in relay.events]
        assert before == told
        assert (kind, detail.split()[0]) == (_fastpath.EVENT_CLOSED, b"peer")


@pytest.mark.parametrize("reason", [b"", b"\x03", struct.pack(">H", 999)])
def test_a_close_frame_that_says_nothing_or_is_malformed_is_no_event(reason: bytes) -> None:
    with EngineRelay() as relay:
        peer = relay.adopt(client=True)
        peer.send(CLOSE, reason)
        assert relay.cause(peer.connection) == ("protocol_error" if reason else "peer")
        assert [kind for _, kind, _ in relay.events] == [_fastpath.EVENT_CLOSED]


@pytest.mark.parametrize("reason", REASONS)
def test_whatever_it_is_a_line_of_printable_ascii_is_made_of_it(reason: bytes) -> None:
    code, text = closing.parse(struct.pack(">H", 4002) + reason)
    assert code == 4002
    assert text.isascii()
    assert text.isprintable()
    assert "gotcha" in text


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
