"""The image of Dockerfile, built and started as docs/containers.md says, by its own commands: a relay and two members,
who ping each other, and come back after an upgrade.

make image          root; debootstrap, podman, runc

The base image is a tree that debootstrap makes once, and what pip installs is downloaded out here, so that the build
reaches no network. Each container has the network of a machine of its own, which is a network namespace, and that
machine has an /etc of its own, and podman as its `docker`; images and containers are in build/image, beside nobody
else's.
"""

import json
import os
import re
import resource
import shutil
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from units import ROOT, SUITE, Failed, bootstrap, gather_wheels, run

sys.path.append(str(ROOT / "tests"))

from kit.steps import Fault, Step, missing, steps_elsewhere
from lab.namespaces import Ethernet, Namespace
from lab.programs import Program
from lab.traffic import ping

FOLDER = ROOT / "build/image"
TREE = FOLDER / f"tree-{SUITE}"
PACKAGES = "python3,python3-venv,python3-dev,gcc,libc6-dev,nftables"
BASE = f"localhost/candy-base:{SUITE}"
PROCESSES = 4096
TOOLS = {
    "debootstrap": "debootstrap",
    "podman": "podman",
    "runc": "runc",
}
MEMBER = f'websocket = "ws://{Ethernet.ADDRESS}:26816"\npassword_file = "/etc/candy/password"\nmasquerade = true\n'
DOCKER = """#!/bin/sh
[ "$1" = compose ] || exec podman "$@"
shift
# podman-compose wants to be told that there is no terminal.
[ "$1" != exec ] || { shift; set -- exec -T "$@"; }
exec %(python)s -m podman_compose -p %(project)s -f %(file)s --podman-build-args='%(build)s' "$@"
"""
_ETC = """
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs {folder}
mkdir {folder}/upper {folder}/work
mount -t overlay overlay -o lowerdir=/etc,upperdir={folder}/upper,workdir={folder}/work /etc
rm -rf /etc/candy
echo ready
exec sleep infinity
"""


def environment() -> Mapping[str, str]:
    """Podman's, with places and limits of its own: a sandbox may refuse it the usual ones."""
    for tool, package in TOOLS.items():
        if shutil.which(tool) is None:
            raise Failed(f"{tool} is missing: apt install {package}")
    FOLDER.mkdir(parents=True, exist_ok=True)
    descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    engine, storage = FOLDER / "containers.conf", FOLDER / "storage.conf"
    engine.write_text(
        f'[containers]\ndefault_ulimits = ["nofile={descriptors}:{descriptors}", "nproc={PROCESSES}:{PROCESSES}"]\n'
        '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
    )
    storage.write_text(
        f'[storage]\ndriver = "overlay"\ngraphroot = "{FOLDER / "storage"}"\nrunroot = "{FOLDER / "run"}"\n'
    )
    places = {"CONTAINERS_CONF": str(engine), "CONTAINERS_STORAGE_CONF": str(storage)}
    return {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/root"), "PYTHONUNBUFFERED": "1", **places}


def make_base(environ: Mapping[str, str]) -> None:
    """An image with what compiles the engine and runs it, unless there is one."""
    if BASE in run("podman", "images", "--format", "{{.Repository}}:{{.Tag}}", env=environ).split():
        return
    if not (TREE / "usr/bin/nft").exists() and not (TREE / "usr/sbin/nft").exists():
        shutil.rmtree(TREE, ignore_errors=True)
        bootstrap(TREE, PACKAGES)
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        archive = Path(folder, "base.tar")
        run("tar", "-C", TREE, "--numeric-owner", "-cf", archive, ".")
        run("podman", "import", "-q", archive, BASE, env=environ)


def build_arguments() -> str:
    """For podman's build: with the base above, and without a network."""
    wheels, settings = FOLDER / "wheels", FOLDER / "pip.conf"
    gather_wheels(wheels, "cluster")
    settings.write_text("[global]\nno-index = true\nfind-links = /wheels\n")
    given = (f"--build-arg=BASE={BASE}", f"--volume={wheels}:/wheels:ro", f"--volume={settings}:/etc/pip.conf:ro")
    return " ".join(("--isolation=chroot", "--network=host", *given))


class Machine:
    """One that runs a service of compose.yaml, in its own network and with its own /etc."""

    def __init__(
        self, stack: ExitStack, where: Namespace, folder: Path, service: str, building: str, environ: Mapping[str, str]
    ) -> None:
        folder.mkdir()
        docker = {"python": sys.executable, "project": folder.name, "file": ROOT / "compose.yaml", "build": building}
        (folder / "docker").write_text(DOCKER % docker)
        (folder / "docker").chmod(0o755)
        (folder / "etc").mkdir()
        self._stack = stack
        self._service = service
        self._container = f"{folder.name}_{service}_1"
        self._environ = {**environ, "PATH": f"{folder}:{environ['PATH']}"}
        script = _ETC.format(folder=folder / "etc")
        with where:
            inside = Program(folder.name, ["unshare", "--mount", "--kill-child", "sh", "-c", script], self._environ)
        stack.enter_context(inside)
        inside.wait_for("^ready$")
        self._into = ("nsenter", f"--target={inside.pid}", "--mount", "--net")
        stack.callback(self._remove, folder.name)

    def write(self, path: str, text: str) -> None:
        """A file in its /etc, which only root reads."""
        self.run("sh", "-c", 'umask 077; mkdir -p "${1%/*}"; printf %s "$2" > "$1"', "sh", path, text)

    def run(self, *command: str) -> str:
        return run(*self._into, *command, env=self._environ)

    def do(self, block: Step) -> None:
        """A block of the document, in the checkout; it has to print what is shown there."""
        # podman-compose has colours without a terminal, too.
        printed = re.sub("\x1b\\[[0-9;]*m", "", self.run("bash", "-ec", f"cd {ROOT}\n{block.text}"))
        if (lost := missing(block.shown, printed.splitlines())) is not None:
            raise Failed(f"{lost!r} is not among what was printed:\n{printed}")
        print(f"ok  {block.text.splitlines()[-1]}", flush=True)

    def follow(self) -> Program:
        """The log of its container, from that one's start on."""
        return self._stack.enter_context(
            Program(self._container, [*self._into, "podman", "logs", "-f", self._container], self._environ)
        )

    def inside(self, *command: str) -> str:
        """What a command prints that runs in the container."""
        return self.run("docker", "compose", "exec", self._service, *command)

    def stop(self) -> None:
        """Have it end as an operator does. Raises Failed: it did not end by itself."""
        self.run("docker", "compose", "stop", "-t", "20", self._service)
        status = self.run("podman", "inspect", "--format", "{{.State.ExitCode}}", self._container)
        if status.strip() != "0":
            raise Failed(f"{self._container} ended with status {status.strip()}")

    def volumes(self) -> list[str]:
        return self.run("podman", "volume", "ls", "-q").split()

    def _remove(self, project: str) -> None:
        self.run("podman", "rm", "-f", "-t", "0", "-i", self._container)
        self.run("podman", "volume", "rm", "-f", f"{project}_relay", f"{project}_member")


def check(environ: Mapping[str, str], building: str) -> None:
    """Two members by a relay, each in a container on a machine of its own, by the document's blocks."""
    start, read, join, ask, upgrade, uninstall = steps_elsewhere("make image", ROOT / "docs/containers.md")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        ethernet = Ethernet(stack)
        hosts = [ethernet.host() for _ in range(2)]
        for host in hosts:
            # --masquerade wants it, and a container's is read-only.
            host.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
        relay = Machine(stack, ethernet.hub, folder / "relay", "relay", building, environ)
        members = [
            Machine(stack, host, folder / f"host{number}", "member", building, environ)
            for number, host in enumerate(hosts, 1)
        ]
        print("build the image", flush=True)
        relay.do(start)
        served = relay.follow()
        served.wait_for("listening on")
        relay.do(read)
        relay.run("docker", "compose", "kill", "-s", "HUP", "relay")
        served.wait_for("the settings are read again")
        print("ok  a reload is applied", flush=True)
        password = relay.run("cat", "/etc/candy/password")
        for member in members:
            member.write("/etc/candy/home.toml", MEMBER)
            member.write("/etc/candy/password", password)
            member.do(join)
        logs = [member.follow() for member in members]
        addresses = [log.wait_for(r"connected as ([0-9.]+)/")[1] for log in logs]
        members[0].do(ask)
        for host, address in zip(hosts, reversed(addresses), strict=True):
            if " 0% packet loss" not in (answered := ping(host, address)):
                raise Failed(f"one machine does not reach the other:\n{answered}")
        print("ok  they ping each other", flush=True)
        shown = relay.inside("candy-server", "members")
        if not all(address in shown for address in addresses):
            raise Failed(f"candy-server members in the container does not show them:\n{shown}")
        print("ok  commands in the containers answer", flush=True)
        before = relay.inside("candy-server", "devices", "--json")
        seen = [len(log.lines) for log in logs]
        relay.do(upgrade)
        for log, address, after in zip(logs, addresses, seen, strict=True):
            log.wait_for(rf"connected as {address}/", after)
        if _devices(relay.inside("candy-server", "devices", "--json")) != _devices(before):
            raise Failed("the relay does not know the same devices after the upgrade")
        print("ok  members are back after the upgrade, at their addresses", flush=True)
        for machine in (*members, relay):
            machine.stop()
        print("ok  they end when they are asked to", flush=True)
        for machine in (*members, relay):
            machine.do(uninstall)
        if left := relay.volumes():
            raise Failed(f"volumes are left: {left}")


def _devices(answer: str) -> list[tuple[str, str]]:
    """Their fingerprints and addresses."""
    return sorted((each["fingerprint"], each["address"]) for each in json.loads(answer)["devices"])


def main() -> None:
    """Make the base, build, start, look."""
    if os.geteuid() != 0:
        sys.exit("image: only root can start containers")
    try:
        environ = environment()
        make_base(environ)
        check(environ, build_arguments())
    except (Failed, Fault, AssertionError) as failed:
        sys.exit(f"image: {failed}")


if __name__ == "__main__":
    main()
