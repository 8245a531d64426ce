"""The filter for fail2ban, by fail2ban-regex itself: it finds failed log-ins by their sources, and nothing else."""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import pytest
from lab.member import Member
from lab.programs import RelayProgram

TEXT = "2026-11-27 12:44:01,123 WARNING {}"
JSON = '{{"time": "2026-11-27T12:44:01.123Z", "level": "warning", "message": "{}", "source": "x", "network": "/"}}'
JOURNAL = "Nov 27 12:44:01 relay candy-server[4711]: WARNING {}"
FORMS = [TEXT, JSON, JOURNAL]


@dataclass(frozen=True)
class Fail2ban:
    """The program, and where Python and the program find their own files."""

    program: str
    modules: Path | None
    settings: Path

    def sources(self, folder: Path, lines: Sequence[str]) -> list[str]:
        """Of the lines that the shipped filter matches."""
        filters = folder / "filter.d"
        filters.mkdir(exist_ok=True)
        shutil.copy(self.settings / "filter.d" / "common.conf", filters)
        shipped = filters / "candy-server.conf"
        shipped.write_text((resources.files("candy") / "examples" / "fail2ban-filter.conf").read_text())
        log = folder / "log"
        log.write_text("".join(f"{line}\n" for line in lines))
        ran = subprocess.run(
            [self.program, "--config", str(self.settings), "--out", "ip", str(log), str(shipped)],
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
            | ({} if self.modules is None else {"PYTHONPATH": str(self.modules)}),
            capture_output=True,
            text=True,
            check=True,
        )
        return ran.stdout.split()


@pytest.fixture(scope="module")
def fail2ban(tmp_path_factory: pytest.TempPathFactory) -> Fail2ban:
    """As installed, or else unpacked from its package: installing it would start it."""
    if program := shutil.which("fail2ban-regex"):
        return Fail2ban(program, None, Path("/etc/fail2ban"))
    if shutil.which("apt-get") is None:
        pytest.skip("needs fail2ban-regex: install fail2ban")
    folder = tmp_path_factory.mktemp("fail2ban")
    # apt drops root's rights for a download, and needs to write here then.
    folder.chmod(0o777)
    for command in (["apt-get", "download", "fail2ban"], ["sh", "-c", "dpkg-deb --extract fail2ban_*.deb ."]):
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"needs fail2ban-regex, and {' '.join(command)} failed: {done.stderr.strip()}")
    modules = folder / "usr/lib/python3/dist-packages"
    return Fail2ban(str(folder / "usr/bin/fail2ban-regex"), modules, folder / "etc/fail2ban")


@pytest.mark.parametrize("form", FORMS, ids=["text", "json", "journal"])
def test_failed_log_ins(fail2ban: Fail2ban, tmp_path: Path, form: str) -> None:
    found = fail2ban.sources(
        tmp_path,
        [
            form.format("203.0.113.1: refused: wrong password in AUTH"),
            form.format("/home: 203.0.113.2: refused: wrong password in VMAC"),
            form.format("/office/eu: 2001:db8::7: refused: wrong password in EXPTTUN"),
            form.format("203.0.113.3: refused: AUTH for 192.168.202.5 is a replay (VMAC 0123456789abcdef)"),
            form.format("203.0.113.4: refused: wrong password in AUTH … and 57 more from several addresses"),
        ],
    )
    assert found == ["203.0.113.1", "203.0.113.2", "2001:db8::7", "203.0.113.3", "203.0.113.4"]


@pytest.mark.parametrize("form", FORMS, ids=["text", "json", "journal"])
def test_what_is_none(fail2ban: Fail2ban, tmp_path: Path, form: str) -> None:
    """Other refusals, of members that have the password; a proxy's; and what strangers and members may write."""
    forged = "203.0.113.9: refused: wrong password in AUTH"
    said = [
        "203.0.113.1: refused: AUTH is +400 s off this clock, 300 s are tolerated",
        "203.0.113.1: refused: password that holds no more (old) in AUTH",
        "203.0.113.1: refused: AUTH for 192.168.202.5 may be a replay: it is of a time whose log-ins are forgotten",
        "203.0.113.1: logged in as 192.168.202.7",
        "proxy 127.0.0.1: refused: wrong password in AUTH",
        f"203.0.113.1: not let in: a web page of '{forged}', which no --allow-origin names",
        f"203.0.113.1: 192.168.202.5 logged out after 1 s, 0 bytes in, 0 out: it closed ({forged})",
    ]
    assert fail2ban.sources(tmp_path, [form.format(line) for line in said]) == []


@pytest.mark.parametrize("flags", [[], ["--no-timestamp"], ["--log-format", "json"]], ids=["text", "untimed", "json"])
def test_what_the_relay_writes(fail2ban: Fail2ban, tmp_path: Path, flags: list[str]) -> None:
    """Three guesses of one source, as it writes them; a right password and a clock that is off are none."""
    with RelayProgram(tmp_path, *flags) as relay:
        for _ in range(3):
            with Member.connect(relay.address, password="a guess") as guessing:
                guessing.send(guessing.auth("192.168.202.5"))
                assert guessing.end() is None
        with Member.connect(relay.address) as late:
            late.send(late.auth("192.168.202.5", int(time.time()) - 1000))
            assert late.end() is None
        with Member.connect(relay.address) as member:
            member.log_in("192.168.202.5")
    lines = [line for line in relay.lines if re.search("refused|logged", line)]
    assert fail2ban.sources(tmp_path, lines) == ["127.0.0.1"] * 3
