"""Any message survives encode and decode; any bytes at all are a message or a WireError, nothing else."""

from ipaddress import IPv4Interface, IPv4Network

from hypothesis import given, settings
from hypothesis import strategies as st
from kit.talk import network

from candy.errors import WireError
from candy.protocol import wire
from candy.relay.pool import Pool

addresses = st.ip_addresses(v=4)
timestamps = st.integers(-(2**63), 2**63 - 1)
digests = st.binary(min_size=32, max_size=32)
prefixes = st.integers(0, 32)
interfaces = st.builds(lambda ip, prefix: IPv4Interface((ip, prefix)), addresses, prefixes)
networks = st.builds(lambda ip, prefix: IPv4Network((ip, prefix), strict=False), addresses, prefixes)
entries = st.builds(wire.RouteEntry, networks, addresses)
placements = st.builds(wire.Placement, networks, addresses, networks)

hashed = st.one_of(
    st.builds(wire.Auth, addresses, timestamps, digests),
    st.builds(wire.Expttun, timestamps, interfaces, digests),
    st.builds(wire.Vmac, st.binary(min_size=16, max_size=16), timestamps, digests),
)
messages: st.SearchStrategy[wire.Message] = st.one_of(
    hashed,
    st.builds(wire.Udp4Conn, addresses, addresses, addresses, st.integers(0, 2**16 - 1)),
    st.builds(wire.Discovery, addresses, addresses),
    st.builds(wire.Route, st.lists(entries, max_size=8).map(tuple), st.integers(0, 255)),
    st.builds(wire.Behind, st.lists(placements, max_size=8).map(tuple), st.integers(0, 255)),
    st.builds(
        wire.General,
        st.integers(0, 255),
        st.integers(0, 2**16 - 1),
        addresses,
        addresses,
        st.binary(max_size=64),
    ),
)
# Random bytes are rarely a message, so most of these begin as one and are cut, prolonged or changed.
kinds = st.sampled_from(list(wire.Kind)).map(lambda kind: bytes([kind]))
almost = st.builds(
    lambda message, cut, at, byte, tail: (message[:at] + byte + message[at + 1 :])[:cut] + tail,
    messages.map(lambda message: message.encode()),
    st.integers(0, 128),
    st.integers(0, 128),
    st.binary(max_size=1),
    st.binary(max_size=8),
)
anything = st.one_of(st.binary(max_size=128), st.builds(bytes.__add__, kinds, st.binary(max_size=128)), almost)


def reason_of(payload: bytes) -> str | None:
    """Why these bytes are no message, or None when they are one."""
    try:
        wire.decode(payload)
    except WireError as error:
        return error.reason
    return None


@given(messages)
def test_decode_is_the_inverse_of_encode(message: wire.Message) -> None:
    assert wire.decode(message.encode()) == message


@given(hashed, st.binary(max_size=64))
def test_confusion_changes_nothing(message: wire.Auth | wire.Expttun | wire.Vmac, confusion: bytes) -> None:
    assert wire.decode(message.encode(confusion)) == message


@given(messages.map(lambda message: message.encode()), st.data())
def test_cut_anywhere_is_a_message_or_too_short(payload: bytes, data: st.DataObject) -> None:
    cut = payload[: data.draw(st.integers(1, len(payload)))]
    assert reason_of(cut) in (None, "too_short")


@settings(max_examples=300)
@given(anything)
def test_any_bytes_are_a_message_or_a_wire_error_and_encoding_is_a_fix_point(payload: bytes) -> None:
    reason = reason_of(payload)
    if reason is not None:
        assert reason in set(wire.DropReason)
        return
    message = wire.decode(payload)
    again = message.encode()
    assert wire.decode(again) == message
    assert wire.decode(again).encode() == again


@settings(max_examples=200)
@given(st.lists(anything, max_size=8))
def test_any_bytes_at_all_never_upset_a_network(payloads: list[bytes]) -> None:
    net = network(Pool(IPv4Network("10.0.0.0/30")))
    net.opened(1, "203.0.113.5", 0.0)
    for payload in payloads:
        net.received(1, payload, 0.0, 0)
        net.ponged(1, payload, 0.0, 0)
