"""How a relay starts and ends: lines that can't be printed, and a terminal that is closed."""

import signal
from pathlib import Path

from lab.member import Member
from lab.programs import Program, environment, server


def test_lines_for_members_that_nobody_takes(tmp_path: Path) -> None:
    """Neither a full disk nor a reader that has gone ends a relay."""
    argv = ["sh", "-c", 'exec "$@" > /dev/full', "sh", *server("-w", "ws://127.0.0.1:0")]
    with Program("relay", argv, environment(tmp_path)) as relay:
        relay.wait_for("WARNING the lines for members can't be printed: No space left on device$")
        address = ("127.0.0.1", int(relay.wait_for(r"listening on 127\.0\.0\.1:(\d+)")[1]))
        with Member.connect(address) as member:
            member.log_in(str(member.ask().ip))
        relay.signal(signal.SIGTERM)
        assert relay.wait() == 0


def test_a_terminal_that_is_closed(tmp_path: Path) -> None:
    """Members are told, as at any other end; but with nohup it goes on."""
    for settled, status in ((["env", "--default-signal=HUP"], 0), (["env", "--ignore-signal=HUP"], None)):
        argv = [*settled, *server("-w", "ws://127.0.0.1:0")]
        with Program("relay", argv, environment(tmp_path)) as relay:
            address = ("127.0.0.1", int(relay.wait_for(r"listening on 127\.0\.0\.1:(\d+)")[1]))
            with Member.connect(address) as member:
                relay.signal(signal.SIGHUP)
                if status is None:
                    member.log_in(str(member.ask().ip))
                else:
                    assert member.end() == 1001
                    assert relay.wait() == status
