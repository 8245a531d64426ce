"""Control sockets: where they are, whom they let in, and what they replace."""

import errno
import grp
import os
import socket
import stat
from collections.abc import Mapping
from pathlib import Path

import pytest

from candy.control import sockets
from candy.control.sockets import ControlSocket, Side, candidates, open_tcp, place
from candy.errors import OperationalError


@pytest.mark.parametrize(
    ("side", "which", "environ", "uid", "path"),
    [
        ("relay", "26816", {}, 0, "/run/candy/relay-26816.sock"),
        ("member", "candy-home", {}, 0, "/run/candy/member-candy-home.sock"),
        ("relay", "1", {"RUNTIME_DIRECTORY": "/run/candy-server:/run/other"}, 7, "/run/candy-server/control"),
        ("member", "candy", {"RUNTIME_DIRECTORY": "/run/candy-client"}, 0, "/run/candy-client/control"),
        ("relay", "1", {"XDG_RUNTIME_DIR": "/run/user/7"}, 7, "/run/user/7/candy/relay-1.sock"),
        ("relay", "1", {"XDG_RUNTIME_DIR": "/run/user/0"}, 0, "/run/candy/relay-1.sock"),
        ("relay", "1", {"XDG_RUNTIME_DIR": "relative"}, 7, "/run/candy/relay-1.sock"),
    ],
)
def test_place(side: Side, which: str, environ: Mapping[str, str], uid: int, path: str) -> None:
    assert place(side, which, environ, uid) == Path(path)


def test_candidates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "RUN", tmp_path)
    monkeypatch.setattr(sockets, "UNITS", {"relay": tmp_path / "unit", "member": tmp_path / "other unit"})
    assert candidates("relay", {}, 0) == []
    for name in ("relay-2.sock", "relay-1.sock", "member-candy.sock", "unit"):
        (tmp_path / name).touch()
    assert [path.name for path in candidates("relay", {}, 0)] == ["relay-1.sock", "relay-2.sock", "unit"]
    assert [path.name for path in candidates("member", {}, 0)] == ["member-candy.sock"]


def connects(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
        return peer.connect_ex(str(path)) == 0


def test_it_listens_and_goes(tmp_path: Path) -> None:
    path = tmp_path / "made" / "control"
    before = os.umask(0o777)
    try:
        opened = ControlSocket(path)
    finally:
        os.umask(before)
    assert connects(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert [entry.name for entry in path.parent.iterdir()] == ["control"]
    opened.close()
    opened.close()
    assert list(path.parent.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize("as_number", [True, False])
def test_its_group(tmp_path: Path, as_number: bool) -> None:
    group = grp.getgrnam("daemon")
    opened = ControlSocket(tmp_path / "control", str(group.gr_gid) if as_number else "daemon")
    assert opened.path.stat().st_gid == group.gr_gid
    opened.close()


def test_a_dead_programs_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "control"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(path))
        dead.listen()
    assert path.exists()
    assert not connects(path)
    opened = ControlSocket(path)
    assert connects(path)
    opened.close()


def test_a_living_programs_is_left_alone(tmp_path: Path) -> None:
    first = ControlSocket(tmp_path / "control")
    with pytest.raises(OperationalError, match=r"control is another program's, which runs: name another path$"):
        ControlSocket(first.path)
    assert connects(first.path)
    first.close()


def test_the_socket_of_its_successor_is_left_alone(tmp_path: Path) -> None:
    first = ControlSocket(tmp_path / "control")
    first.path.unlink()
    second = ControlSocket(first.path)
    first.close()
    assert connects(second.path)
    second.close()


def test_what_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "control"
    path.write_text("precious")
    with pytest.raises(OperationalError, match=r"control is there, and no socket: remove it, or name another path$"):
        ControlSocket(path)
    assert path.read_text() == "precious"


@pytest.mark.parametrize(
    ("path", "group", "said"),
    [
        ("x" * 108, None, "the path of the control socket is too long: "),
        ("no folder/at all/control", None, "cannot make the control socket .*: No such file or directory$"),
        ("control", "nobody has this group", "this machine has no group 'nobody has this group': groupadd "),
    ],
)
def test_one_that_cannot_be(tmp_path: Path, path: str, group: str | None, said: str) -> None:
    with pytest.raises(OperationalError, match=said):
        ControlSocket(tmp_path / path, group)
    assert list(tmp_path.iterdir()) == []


def test_nothing_stays_of_one_that_is_half_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(OperationalError, match=r"cannot make the control socket .*: Operation not permitted$"):
        ControlSocket(tmp_path / "control")
    assert list(tmp_path.iterdir()) == []


def test_tcp_that_is_in_use() -> None:
    for host in ("127.0.0.1", "::1"):
        opened = open_tcp(host, 0, "--control")
        port = opened.getsockname()[1]
        with pytest.raises(OperationalError, match=rf"{port}: Address already in use: see --metrics$"):
            open_tcp(host, port, "--metrics")
        opened.close()
