"""The lines of SIGUSR1, and that both commands write them."""

import re
import signal
from pathlib import Path

from lab.member import Member
from lab.programs import RelayProgram

from candy._fastpath import DROPS, Engine
from candy.counters import lines


def test_every_total_and_the_drops_that_there_were() -> None:
    drops = {"stale": 0, "text": 2, "no_route": 1}
    assert list(lines({"packets_in": 7, "sends": 0}, drops, {"text": 3, "second_auth": 4})) == [
        "packets_in: 7",
        "sends: 0",
        "dropped text: 5",
        "dropped no_route: 1",
        "dropped second_auth: 4",
    ]


def test_an_engine_at_rest() -> None:
    engine = Engine()
    try:
        assert set(engine.drops()) == set(DROPS)
        assert list(lines(engine.stats(), engine.drops())) == [f"{name}: 0" for name in engine.stats()]
    finally:
        engine.stop()


def test_the_relay_names_no_reason_for_which_nothing_was_dropped(tmp_path: Path) -> None:
    with RelayProgram(tmp_path) as relay, Member.connect(relay.address) as member:
        member.send(b"\x07unknown")
        member.log_in(str(member.ask().ip))
        start = len(relay.lines)
        relay.signal(signal.SIGUSR1)
        relay.signal(signal.SIGTERM)
        assert relay.wait() == 0
        found = [re.search(r"INFO (dropped .*)$", line) for line in relay.lines[start:]]
    assert [match[1] for match in found if match] == ["dropped unknown_kind: 1"]
