"""The units of service install under a real systemd: start, reload, restart, a hang, a boot without network, the end;
and with them the blocks of the documents that install, upgrade and uninstall candy on a machine.

    make units          root; debootstrap and systemd-nspawn

A tree is made by debootstrap once (build/machine-SUITE), and gets a copy of this checkout, which is installed there as
README says: by its own compiler, with what pip asks for from a folder. Then it is booted in a container with a network
of its own, where nothing but lo is there at first. The relay and a member run in it.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "tests"))

from kit.steps import Fault, Step, missing, steps_elsewhere  # noqa: E402

SUITES = {(3, 11): "bookworm", (3, 13): "trixie"}
"""The Debian that has a Python: what pip gathers out here has to fit there."""
SUITE = SUITES.get(sys.version_info[:2], "")
TREE = ROOT / f"build/machine-{SUITE}"
CHECKOUT = "root/candy"
"""Where the machine has it."""
WHEELS = "wheels"
PACKAGES = "systemd,systemd-sysv,dbus,iproute2"
ENVIRON = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
}
PATIENCE_S = 90.0
ADDRESS = "10.99.0.1"
SERVER = 'websocket = "ws://0.0.0.0:26816"\ndhcp = "10.64.0.0/24"\n'
MEMBER = f'websocket = "ws://{ADDRESS}:26816"\npassword = "a password"\n'
NEXT = "99.0.0"
"""The version to which the machine is upgraded."""


class Failed(Exception):
    """Something that has to be so is not; says what."""


def run(*command: str | Path, **more: object) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True, **more)  # type: ignore[call-overload]
    if done.returncode:
        raise Failed(f"{' '.join(map(str, command))}: {done.stderr.strip() or done.stdout.strip()}")
    return str(done.stdout)


def bootstrap(tree: Path, packages: str) -> None:
    """A Debian with the Python of this one's version."""
    if not SUITE:
        known = " or ".join(f"{major}.{minor}" for major, minor in SUITES)
        raise Failed(f"no Debian here has Python {sys.version_info[0]}.{sys.version_info[1]}: make .venv with {known}")
    print(f"make {tree.relative_to(ROOT)}", flush=True)
    run("debootstrap", "--variant=minbase", f"--include={packages}", SUITE, tree)


def gather_wheels(folder: Path, *extras: str) -> None:
    """What pip asks for when it builds and installs candy, for machines without a network."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = [*project["build-system"]["requires"], *project["project"]["dependencies"]]
    for extra in extras:
        needed += project["project"]["optional-dependencies"][extra]
    shutil.rmtree(folder, ignore_errors=True)
    print("gather what pip asks for", flush=True)
    run(sys.executable, "-m", "pip", "wheel", "-q", "--wheel-dir", folder, *needed)


def make_tree() -> None:
    """A machine with candy in /opt/candy."""
    for tool in ("debootstrap", "systemd-nspawn"):
        if shutil.which(tool) is None:
            raise Failed(f"{tool} is missing: apt install debootstrap systemd-container")
    if not (TREE / "opt").exists():
        bootstrap(TREE, PACKAGES)
    gather_wheels(TREE / WHEELS)
    (TREE / "etc/pip.conf").write_text(f"[global]\nno-index = true\nfind-links = /{WHEELS}\n")
    for folder in (CHECKOUT, "opt/candy", "etc/candy", "var/lib/candy", "var/lib/private", "var/lib/candy-server"):
        shutil.rmtree(TREE / folder, ignore_errors=True)
    left_out = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__", "*.so")
    shutil.copytree(ROOT, TREE / CHECKOUT, ignore=left_out)
    inside = ("chroot", str(TREE))
    blocks = steps_elsewhere(
        "make units", *(ROOT / name for name in ("README.md", "README.zh-CN.md", "docs/quickstart.md"))
    )
    if len({block.text for block in blocks}) != 1:
        raise Failed("the documents do not install candy in one way")
    do(blocks[0], *inside)
    configuration = TREE / "etc/candy"
    configuration.mkdir()
    (configuration / "server.toml").write_text(SERVER)
    (configuration / "password").write_text("a password\n")
    (configuration / "password").chmod(0o600)
    (configuration / "home.toml").write_text(MEMBER)
    (configuration / "home.toml").chmod(0o600)
    for command in (("candy-server", "service", "install"), ("candy-client", "service", "install", "home")):
        print(run(*inside, f"/opt/candy/bin/{command[0]}", *command[1:]), end="", flush=True)
    run(*inside, "systemctl", "enable", "candy-server", "candy-client@home")


def do(block: Step, *inside: str) -> None:
    """A block of a document, in the checkout; it has to print what the document shows."""
    path = f"PATH=/opt/candy/bin:{ENVIRON['PATH']}"
    environ = [f"{name}={value}" for name, value in ENVIRON.items() if name != "PATH"]
    printed = run(*inside, "env", "-i", path, *environ, "bash", "-ec", f"cd /{CHECKOUT}\n{block.text}")
    if (lost := missing(block.shown, printed.splitlines())) is not None:
        raise Failed(f"{lost!r} is not among what was printed:\n{printed}")
    print(f"ok  {' && '.join(block.text.splitlines())}", flush=True)


class Machine:
    """The container, once it has booted."""

    def __init__(self, leader: str) -> None:
        self._into = ("nsenter", "-t", leader, "-m", "-u", "-i", "-n", "-p", "--")

    def run(self, *command: str) -> str:
        return run(*self._into, *command)

    def do(self, block: Step) -> None:
        do(block, *self._into)

    def show(self, unit: str, what: str) -> str:
        return self.run("systemctl", "show", "--value", "-p", what, unit).strip()

    def until(self, about: str, holds: Callable[[], bool]) -> None:
        """Wait for what systemd does at its own pace."""
        end = time.monotonic() + PATIENCE_S
        while not holds():
            if time.monotonic() > end:
                journal = self.run("journalctl", "--no-pager", "-b", "-n", "40", "-u", "candy-*")
                raise Failed(f"not so after {PATIENCE_S:g} s: {about}\n{journal}")
            time.sleep(0.2)
        print(f"ok  {about}", flush=True)

    def until_active(self, unit: str, about: str) -> None:
        self.until(about, lambda: self.show(unit, "ActiveState") == "active")

    def logged(self, unit: str, text: str) -> int:
        return self.run("journalctl", "--no-pager", "-b", "-u", unit).count(text)


@contextmanager
def booted() -> Iterator[Machine]:
    """A machine that has nothing but lo."""
    process = subprocess.Popen(
        [
            *("systemd-nspawn", "-q", "-b", "-D", str(TREE), "--register=no", "--keep-unit", "--private-network"),
            *("--bind=/dev/net/tun", "--console=pipe"),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        end, children = time.monotonic() + PATIENCE_S, Path(f"/proc/{process.pid}/task/{process.pid}/children")
        while process.poll() is None and time.monotonic() < end:
            for leader in children.read_text().split():
                machine = Machine(leader)
                try:
                    machine.run("systemctl", "is-system-running", "--wait")
                except Failed as failed:
                    # "degraded" is a state as well: other units of a container may fail.
                    if "degraded" not in str(failed):
                        continue
                yield machine
                return
            time.sleep(0.2)
        raise Failed("the machine did not boot")
    finally:
        # What halts a container (systemd-nspawn(1)); then what always does.
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def check(machine: Machine) -> None:
    relay, member = "candy-server", "candy-client@home"
    machine.until_active(relay, "the relay is up without a network")
    machine.until_active(member, "the member is up without a network")
    machine.until("it says that it has no connection", lambda: "connect" in machine.show(member, "StatusText"))
    machine.run("ip", "link", "add", "lan", "type", "bridge")
    machine.run("ip", "address", "add", f"{ADDRESS}/24", "dev", "lan")
    machine.run("ip", "link", "set", "lan", "up")
    connected = "connected as 10.64.0.1/24"
    machine.until("it connects once there is one", lambda: machine.show(member, "StatusText") == connected)
    machine.until("the relay says who is in", lambda: machine.show(relay, "StatusText") == "1 member in")

    before = machine.show(relay, "MainPID")
    config = TREE / "etc/candy/server.toml"
    config.write_text(SERVER + "max_members = 7\n")
    machine.run("systemctl", "reload", relay)
    machine.until("a reload is applied", lambda: machine.logged(relay, "changed: max_members") == 1)
    machine.until_active(relay, "it is active after the reload")
    if machine.show(relay, "MainPID") != before:
        raise Failed("a reload has started another relay")
    machine.run("systemctl", "reload", member)
    machine.until("a member reloads", lambda: machine.logged(member, "the settings are read again") == 1)

    machine.run("systemctl", "restart", relay)
    machine.until("the member is back after a restart", lambda: machine.logged(member, "connected as") == 2)

    for unit in (relay, member):
        hang(machine, unit)
    machine.until("all is as it was", lambda: machine.show(member, "StatusText") == connected)

    for unit in (member, relay):
        end(machine, unit)
    machine.run("/opt/candy/bin/candy-client", "service", "uninstall", "home")
    machine.run("/opt/candy/bin/candy-server", "service", "uninstall")
    print("ok  what was installed is gone", flush=True)
    check_documents(machine)


def check_documents(machine: Machine) -> None:
    """What a document has its reader do with systemd, on a machine where candy is installed."""
    relay = "candy-server"
    install, upgrade, uninstall = steps_elsewhere("make units", ROOT / "docs/relay-for-many.md")
    keys = move_state(machine)
    machine.do(install)
    machine.run("/opt/candy/bin/candy-client", "service", "install", "home")
    machine.until_active(relay, "the relay is up as the document says")
    if keys_in(TREE / "var/lib/private/candy-server") != keys:
        raise Failed("the service does not go on with what was there")
    print("ok  it goes on with the keys that were there", flush=True)
    before = machine.show(relay, "MainPID")
    version = TREE / CHECKOUT / "candy/__init__.py"
    version.write_text(re.sub(r'__version__ = ".*"', f'__version__ = "{NEXT}"', version.read_text()))
    machine.do(upgrade)
    machine.until_active(relay, "the relay is up after the upgrade")
    if machine.show(relay, "MainPID") == before or NEXT not in machine.run("/opt/candy/bin/candy-server", "--version"):
        raise Failed("the relay is not another one after the upgrade")
    machine.do(uninstall)
    if machine.show(relay, "LoadState") != "not-found":
        raise Failed("the unit is there after it was uninstalled")


def move_state(machine: Machine) -> list[bytes]:
    """Start a relay by hand, and leave what it has to a service, as the document says; its keys."""
    by_hand = "candy-server -c /etc/candy/server.toml --password-file /etc/candy/password"
    wait = "until candy-server status >/dev/null 2>&1; do kill -0 $!; sleep 0.2; done"
    away = "rm -rf /var/lib/candy-server /var/lib/private/candy-server"
    script = f"PATH=/opt/candy/bin:$PATH\n{by_hand} &\n{wait}\nkill $!\nwait $!\n{away}\n"
    machine.run("bash", "-ec", f"{script}mv /var/lib/candy /var/lib/candy-server")
    return keys_in(TREE / "var/lib/candy-server")


def keys_in(state: Path) -> list[bytes]:
    """What is in the files of its keys."""
    keys = [path.read_bytes() for path in sorted(state.glob("keys/**/*.key"))]
    if not keys:
        raise Failed(f"{state} has no keys")
    return keys


def hang(machine: Machine, unit: str) -> None:
    """Stop its process, as if it hung."""
    stopped = machine.show(unit, "MainPID")
    machine.run("python3", "-c", f"import os, signal; os.kill({stopped}, signal.SIGSTOP)")
    machine.until(f"a {unit} that hangs is replaced", lambda: machine.show(unit, "MainPID") not in ("0", stopped))
    machine.until_active(unit, "by one that serves")
    if machine.logged(unit, "Watchdog timeout") != 1:
        raise Failed(f"not the watchdog has ended {unit}")


def end(machine: Machine, unit: str) -> None:
    """Have systemd stop it."""
    machine.run("systemctl", "stop", unit)
    ended = ("inactive", "success")
    about = f"{unit} ends by itself"
    machine.until(about, lambda: (machine.show(unit, "ActiveState"), machine.show(unit, "Result")) == ended)


def main() -> None:
    """Make the tree, boot it, look."""
    if os.geteuid() != 0:
        sys.exit("units: only root can boot a container")
    try:
        make_tree()
        with booted() as machine:
            check(machine)
    except (Failed, Fault) as failed:
        sys.exit(f"units: {failed}")


if __name__ == "__main__":
    main()
