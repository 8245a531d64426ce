"""Machines on which a test does what a document says, with the very paths and addresses that stand there.

    Machines(stack, folder) ─▶ machines["relay"].run(commands), .stay(commands), .write(path, text)

    203.0.113.0/24 ──┬── relay     203.0.113.10, vpn.example.org, a certificate and its key in /etc/ssl
                     ├── laptop    203.0.113.7
                     ├── desktop   203.0.113.8
                     └── gateway   203.0.113.9 ── 192.168.1.1, 192.168.1.0/24 ── printer 192.168.1.50

Rules:
 1. A machine is a network namespace, a host name, processes of its own, and a copy of this machine's files, of which
    what is written is nobody else's: an overlay in memory. All of it ends with the stack, whatever runs there.
 2. candy is in /opt/candy/bin, which is in PATH: the one that the tests import. This checkout is where it is, and at
    /root/candy, a copy of it too.
 3. Commands are typed at a terminal, one block after the other: variables that are exported and the folder stay.
"""

import fcntl
import os
import pty
import re
import shlex
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import trustme
from kit.steps import missing
from lab.namespaces import Ethernet, Namespace
from lab.programs import PATIENCE_S, Program

import candy

ROOT = Path(candy.__file__).parents[1]
ADDRESSES = {"relay": "203.0.113.10", "laptop": "203.0.113.7", "desktop": "203.0.113.8", "gateway": "203.0.113.9"}
LAN = {"gateway": "192.168.1.1", "printer": "192.168.1.50"}
NAMES = {"203.0.113.10": "vpn.example.org"}
_AUTHORITIES = "/etc/ssl/authorities.pem"
"""Those that all machines trust, in place of the world's: one, which has signed for each of the NAMES."""
ROWS, COLUMNS = 50, 160
"""Of a terminal."""
_PATIENCE_S = 3 * PATIENCE_S
"""Several programs follow each other in a block."""
_SAID = "\x1e"
"""Begins a line that is the terminal's own."""
_STYLE = re.compile(r"\x1b\[[\d;?]*[a-zA-Z]")

_SET_UP = """
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs {folder}
cd {folder}
mkdir upper work checkout checkout-work root
mount -t overlay overlay -o lowerdir=/,upperdir=upper,workdir=work root
mkdir -p root{checkout} root/root/candy
mount -t overlay overlay -o lowerdir={checkout},upperdir=checkout,workdir=checkout-work root{checkout}
mount --bind root{checkout} root/root/candy
mount --rbind /dev root/dev
mount -t proc proc root/proc
mount -t sysfs sysfs root/sys
mount -t tmpfs tmpfs root/run
mount -t tmpfs tmpfs root/var/tmp
hostname {name}
cd root
rm -rf opt/candy etc/candy var/lib/candy
mkdir -p opt/candy/bin run/.terminal usr/local/bin
echo /root > run/.terminal/folder
echo {name} > etc/hostname
printf '%s\\n' {hosts} > etc/hosts
for side in server client; do
    cat > opt/candy/bin/candy-$side <<END
#!/bin/sh
PYTHONPATH={checkout} exec {python} -c 'from candy.cli.$side import main; main()' "\\$@"
END
done
chmod +x opt/candy/bin/*
echo ready
exec chroot . sleep infinity
"""
_PRELUDE = """\
set -eo pipefail
if [ -f /run/.terminal/variables ]; then . /run/.terminal/variables; fi
cd "$(cat /run/.terminal/folder)"
trap 'status=$?
    [ {stays} = yes ] || {{ export -p > /run/.terminal/variables; pwd > /run/.terminal/folder; }}
    printf "{said}status %s\\n" $status' EXIT
printf '{said}pid %s\\n' $$
"""


def why_no_machine() -> str | None:
    """What keeps this process from making one, besides what keeps it from making namespaces; None: nothing."""
    probe = "mount -t tmpfs t /mnt && mkdir /mnt/u /mnt/w /mnt/r && "
    probe += "mount -t overlay o -o lowerdir=/,upperdir=/mnt/u,workdir=/mnt/w /mnt/r"
    done = subprocess.run(["unshare", "--mount", "sh", "-c", probe], capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else f"cannot mount an overlay: {done.stderr.strip()}"


class Machines:
    """All that a document has, each made when it is asked for first."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self._stack = stack
        self._folder = folder
        self._outside = Ethernet(stack)
        self._made: dict[str, Machine] = {}
        self._authority = trustme.CA()
        self.printed: list[str] = []
        """By all of them, line by line."""

    def __getitem__(self, name: str) -> "Machine":
        if name not in self._made:
            assert name in ADDRESSES | LAN, f"no machine is called {name}: take one of {', '.join(ADDRESSES | LAN)}"
            host = self._plugged_in(name)
            made = self._stack.enter_context(Machine(name, host, self._folder / name, self.printed))
            made.write(_AUTHORITIES, self._authority.cert_pem.bytes().decode())
            if named := NAMES.get(ADDRESSES.get(name, "")):
                certificate = self._authority.issue_cert(named)
                chain = b"".join(each.bytes() for each in certificate.cert_chain_pems)
                made.write(f"/etc/ssl/{named}.pem", chain.decode())
                made.write(f"/etc/ssl/{named}.key", certificate.private_key_pem.bytes().decode())
            self._made[name] = made
            if name == "gateway":
                # Documents ping it, and run nothing there.
                _ = self["printer"]
        return self._made[name]

    def _plugged_in(self, name: str) -> Namespace:
        if name == "printer":
            # Behind its gateway.
            gateway, host = self["gateway"].host, Namespace(name)
            self._stack.callback(host.close)
            gateway.run("ip", "link", "add", "eth1", "type", "veth", "peer", "name", "eth0", "netns", host.path)
            gateway.run("ip", "address", "add", f"{LAN['gateway']}/24", "dev", "eth1")
            gateway.run("ip", "link", "set", "eth1", "up")
            self._set_address(host, LAN[name])
            return host
        host = self._outside.host()
        host.run("ip", "address", "flush", "dev", "eth0")
        self._set_address(host, ADDRESSES[name])
        host.run("ip", "route", "add", "default", "via", "203.0.113.1")
        return host

    def _set_address(self, host: Namespace, address: str) -> None:
        host.run("ip", "address", "add", f"{address}/24", "dev", "eth0")
        host.run("ip", "link", "set", "eth0", "up")


class Machine(Program):
    """One of them.

    Args:
        host: its network.
        folder: to mount its files in; made.
        printed: where to note what its terminals show.
    """

    def __init__(self, name: str, host: Namespace, folder: Path, printed: list[str]) -> None:
        self.host = host
        self._printed = printed
        self._staying: list[Terminal] = []
        folder.mkdir()
        hosts = ["127.0.0.1 localhost", f"127.0.1.1 {name}", *(f"{ip} {of}" for ip, of in NAMES.items())]
        script = _SET_UP.format(
            folder=folder,
            checkout=ROOT,
            name=name,
            hosts=" ".join(map(shlex.quote, hosts)),
            python=sys.executable,
        )
        spaces = ["--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child=KILL"]
        with host:
            super().__init__(name, ["unshare", *spaces, "sh", "-c", script], {"PATH": os.environ["PATH"]})
        self.wait_for("^ready$")
        [self._init] = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()

    def write(self, path: str, text: str) -> None:
        """A file, as an editor would."""
        command = f"mkdir -p {shlex.quote(str(Path(path).parent))} && cat > {shlex.quote(path)}"
        subprocess.run([*self._inside(), "sh", "-c", command], input=text, text=True, check=True)

    def run(self, commands: str, *, fails: bool = False) -> list[str]:
        """Type them, and wait for their end, which has to be a good one or, if they fail, not; what they printed."""
        terminal = self._terminal(commands, stays=False)
        try:
            status = terminal.status()
        finally:
            terminal.close()
        assert (status != 0) is fails, f"{self.name}: exit status {status} of\n{commands}\n" + "\n".join(terminal.lines)
        return terminal.lines

    def stay(self, commands: str, shown: Sequence[str]) -> None:
        """Type them into a terminal of their own, and wait for all of these lines, after which they go on."""
        terminal = self._terminal(commands, stays=True)
        self._staying.append(terminal)
        terminal.wait_until(lambda lines: missing(shown, lines) is None, f"all of {list(shown)}")

    def interrupt(self) -> None:
        """^C at each terminal in which something stays; wait for its end."""
        while self._staying:
            terminal = self._staying.pop()
            subprocess.run([*self._inside(), "kill", "-INT", "--", f"-{terminal.pid()}"], check=True)
            terminal.status()
            terminal.close()

    def close(self) -> None:
        """End all of it."""
        os.kill(int(self._init), signal.SIGKILL)
        super().close()
        for terminal in self._staying:
            terminal.close()

    def _terminal(self, commands: str, *, stays: bool) -> "Terminal":
        prelude = _PRELUDE.format(stays="yes" if stays else "no", said=r"\036")
        path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
        environ = [f"PATH=/opt/candy/bin:{path}", "HOME=/root", "LANG=C.UTF-8", "TERM=xterm", "NO_COLOR=1"]
        environ.append(f"SSL_CERT_FILE={_AUTHORITIES}")
        # setsid makes the shell the leader of the group that ^C is for.
        argv = [*self._inside(), "setsid", "env", "-i", *environ, "bash", "-c", prelude + commands]
        return Terminal(f"{self.name}$ {commands}", argv, self._printed)

    def _inside(self) -> list[str]:
        return ["nsenter", f"--target={self._init}", "--mount", "--pid", "--uts", "--ipc", "--net", "--root", "--wd"]


class Terminal:
    """What a shell and its programs print at a terminal.

    Args:
        title: for the reader of a failure.
        argv: the shell, which says its pid first and its exit status last.
        printed: where to note the lines, too.
    """

    def __init__(self, title: str, argv: Sequence[str], printed: list[str]) -> None:
        self._title = title
        self.lines: list[str] = []
        self._said: dict[str, int] = {}
        self._printed = printed
        self._changed = threading.Condition()
        self._ended = False
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        self._process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", *argv], stdin=subprocess.DEVNULL, stdout=slave, stderr=slave
        )
        os.close(slave)
        self._follower = threading.Thread(target=self._follow, name=title.partition("\n")[0], daemon=True)
        self._follower.start()

    def pid(self) -> int:
        """The shell's, within its machine."""
        self.wait_until(lambda _: "pid" in self._said, "a pid")
        return self._said["pid"]

    def status(self) -> int:
        """Wait for the shell's end; its exit status."""
        self.wait_until(lambda _: "status" in self._said, "an end")
        return self._said["status"]

    def wait_until(self, is_so: Callable[[list[str]], bool], what: str) -> None:
        """Wait until something is true of the lines."""
        deadline = time.monotonic() + _PATIENCE_S
        with self._changed:
            while not is_so(self.lines):
                left = deadline - time.monotonic()
                if self._ended or left <= 0:
                    raise AssertionError(f"{self._title}: {what} did not come:\n" + "\n".join(self.lines))
                self._changed.wait(left)

    def close(self) -> None:
        """Let it go, once its machine or its shell has ended."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        print(f"--- {self._title}", *self.lines, sep="\n")

    def _follow(self) -> None:
        rest = b""
        while True:
            try:
                read = os.read(self._master, 65536)
            except OSError:
                # EIO: nobody has the other end any more.
                break
            *whole, rest = (rest + read).split(b"\n")
            with self._changed:
                for line in whole:
                    self._take(line.decode("utf-8", "replace").rstrip("\r"))
                self._changed.notify_all()
        os.close(self._master)
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _take(self, line: str) -> None:
        # What ends without a newline has the terminal's own line behind it.
        text, own, said = _STYLE.sub("", line).partition(_SAID)
        if own:
            name, _, number = said.partition(" ")
            self._said[name] = int(number)
        if text or not own:
            self.lines.append(text)
            self._printed.append(text)
