"""How a relay starts and ends: lines that nobody takes, and a terminal that is closed."""

import signal
import socket
from contextlib import closing
from pathlib import Path

import pytest
from lab.member import Member, Speaker
from lab.programs import Program, environment, server
from lab.unread import Unread, stderr_refused, stderr_to, stdout_to


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


def test_lines_for_members_whose_reader_stalls(tmp_path: Path) -> None:
    with Unread(tmp_path / "stdout") as stdout:
        argv = stdout_to(stdout.path, server("-w", "ws://127.0.0.1:0"))
        with Program("relay", argv, environment(tmp_path)) as relay:
            relay.wait_for("WARNING the lines for members can't be printed: nobody reads them$")
            address = ("127.0.0.1", int(relay.wait_for(r"listening on 127\.0\.0\.1:(\d+)")[1]))
            with Member.connect(address) as member:
                member.log_in(str(member.ask().ip))
            relay.signal(signal.SIGTERM)
            assert relay.wait() == 0


def serve(relay: Program) -> None:
    """Be guessed at, and let a member in, with a log that nobody can see."""
    address = ("127.0.0.1", int(relay.wait_for(r"-w 'ws://.*:(\d+)#")[1]))
    stranger = Speaker(password="another password")
    for _ in range(50):
        with Member.connect(address) as guessing:
            guessing.send(stranger.auth("192.168.202.9"))
            assert guessing.end() is None
    relay.signal(signal.SIGUSR1)
    with Member.connect(address) as member:
        member.log_in(str(member.ask().ip))


def test_a_log_whose_reader_stalls(tmp_path: Path) -> None:
    """The relay serves on, and ends when it is told to; lines that waited are there if the reader comes back."""
    for comes_back in (False, True):
        with Unread(tmp_path / f"stderr-{comes_back}") as stderr:
            argv = stderr_to(stderr.path, server("-w", "ws://127.0.0.1:0", "--debug", "--no-timestamp"))
            with Program("relay", argv, environment(tmp_path / f"{comes_back}")) as relay:
                serve(relay)
                if comes_back:
                    lines = stderr.read_until(r"logged in as ")
                    assert lines[0].startswith("INFO listening on ")
                    # The first guesses, and all others at debug.
                    refused = "127.0.0.1: refused: wrong password in AUTH"
                    assert [line for line in lines if line.endswith(refused)] == [
                        *[f"WARNING {refused}"] * 3,
                        *[f"DEBUG {refused}"] * 47,
                    ]
                    assert any(line.startswith("INFO packets_in: ") for line in lines)
                relay.signal(signal.SIGTERM)
                assert relay.wait() == 0
                if comes_back:
                    # What was counted within the minute that is not over.
                    assert stderr.read_until("more$")[-2:] == ["INFO ending", f"WARNING {refused} … and 46 more"]


REFUSED = ["full", "gone", "closed"]


@pytest.mark.parametrize("how", REFUSED)
def test_a_log_that_is_refused(tmp_path: Path, how: str) -> None:
    argv = stderr_refused(how, tmp_path, server("-w", "ws://127.0.0.1:0", "--debug"))
    with Program("relay", argv, environment(tmp_path)) as relay:
        serve(relay)
        relay.signal(signal.SIGTERM)
        assert relay.wait() == 0


@pytest.mark.parametrize("how", ["stalled", *REFUSED])
def test_an_error_that_nobody_takes(tmp_path: Path, how: str) -> None:
    """Its exit status tells it all the same."""
    with closing(socket.create_server(("127.0.0.1", 0))) as holder, Unread(tmp_path / "stalled") as stalled:
        url = f"ws://127.0.0.1:{holder.getsockname()[1]}"
        for number, (wrong, status) in enumerate((("nonsense", 2), (url, 1))):
            argv = server("-w", wrong, "-p", "warned of")
            folder = tmp_path / str(number)
            folder.mkdir()
            argv = stderr_to(stalled.path, argv) if how == "stalled" else stderr_refused(how, folder, argv)
            with Program("relay", argv, environment(tmp_path)) as relay:
                assert relay.wait() == status
                assert relay.lines == []


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
