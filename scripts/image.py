"""The image of Dockerfile, built and started by podman as compose.yaml says: a relay and two members, who ping each
other.

make image          root; debootstrap, podman, runc

The base image is a tree that debootstrap makes once, and what pip installs is downloaded out here, so that the build
reaches no network. Each container has the network of a machine of its own, which is a network namespace; images and
containers are in build/image, beside nobody else's.
"""

import os
import resource
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from units import ROOT, SUITE, Failed, run

sys.path.append(str(ROOT / "tests"))

from lab.namespaces import Ethernet, Namespace
from lab.programs import PASSWORD, Program
from lab.traffic import ping

FOLDER = ROOT / "build/image"
TREE = FOLDER / "tree"
PACKAGES = "python3,python3-venv,python3-dev,gcc,libc6-dev,nftables"
BASE = "localhost/candy-base"
IMAGE = "candy"
PROCESSES = 4096
TOOLS = {
    "debootstrap": "debootstrap",
    "podman": "podman",
    "runc": "runc",
}
SERVER = f'websocket = "ws://0.0.0.0:26816"\ndhcp = "10.64.0.0/24"\npassword = "{PASSWORD}"\n'
MEMBER = f'websocket = "ws://{Ethernet.ADDRESS}:26816"\npassword = "{PASSWORD}"\nmasquerade = true\n'


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
    if BASE in run("podman", "images", "--format", "{{.Repository}}", env=environ).split():
        return
    if not (TREE / "usr/bin/nft").exists() and not (TREE / "usr/sbin/nft").exists():
        print(f"make {TREE.relative_to(ROOT)}", flush=True)
        shutil.rmtree(TREE, ignore_errors=True)
        run("debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, TREE)
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        archive = Path(folder, "base.tar")
        run("tar", "-C", TREE, "--numeric-owner", "-cf", archive, ".")
        run("podman", "import", "-q", archive, BASE, env=environ)


def build(environ: Mapping[str, str]) -> None:
    """The image of Dockerfile, without a network."""
    wheels, settings = FOLDER / "wheels", FOLDER / "pip.conf"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = (*project["build-system"]["requires"], *project["project"]["dependencies"])
    needed = (*needed, *project["project"]["optional-dependencies"]["cluster"])
    print("download what pip installs", flush=True)
    run(sys.executable, "-m", "pip", "wheel", "-q", "--wheel-dir", wheels, *needed)
    settings.write_text("[global]\nno-index = true\nfind-links = /wheels\n")
    print("build the image", flush=True)
    given = (f"--build-arg=BASE={BASE}", f"--volume={wheels}:/wheels:ro", f"--volume={settings}:/etc/pip.conf:ro")
    run("podman", "build", "-q", "--isolation", "chroot", "--network", "host", *given, "-t", IMAGE, ROOT, env=environ)


class Machine:
    """One that runs a service of compose.yaml, in its own network."""

    def __init__(
        self, stack: ExitStack, where: Namespace, folder: Path, name: str, service: str, environ: Mapping[str, str]
    ) -> None:
        self._where = where
        self._environ = {**environ, "CANDY_ETC": str(folder / "etc")}
        self._compose = (sys.executable, "-m", "podman_compose", "-p", name, "-f", str(ROOT / "compose.yaml"))
        self._container = f"{name}_{service}_1"
        stack.callback(self._remove, name, service)
        with where:
            run(*self._compose, "up", "-d", "--no-build", service, env=self._environ)
            followed = ["podman", "logs", "-f", self._container]
            self.log = stack.enter_context(Program(name, followed, self._environ))

    def run(self, *command: str) -> str:
        """What a command prints that runs in the container."""
        with self._where:
            return run("podman", "exec", self._container, *command, env=self._environ)

    def stop(self) -> None:
        """Have it end as an operator does. Raises Failed: it did not end by itself."""
        run("podman", "stop", "-t", "20", self._container, env=self._environ)
        status = run("podman", "inspect", "--format", "{{.State.ExitCode}}", self._container, env=self._environ)
        if status.strip() != "0":
            raise Failed(f"{self._container} ended with status {status.strip()}")

    def _remove(self, name: str, service: str) -> None:
        run("podman", "rm", "-f", "-t", "0", "-i", self._container, env=self._environ)
        run("podman", "volume", "rm", "-f", f"{name}_relay", f"{name}_member", env=self._environ)


def check(environ: Mapping[str, str]) -> None:
    """Two members by a relay, each in a container on a machine of its own."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        settings = folder / "etc"
        settings.mkdir()
        for name, text in (("server.toml", SERVER), ("home.toml", MEMBER)):
            (settings / name).write_text(text)
            (settings / name).chmod(0o600)
        ethernet = Ethernet(stack)
        relay = Machine(stack, ethernet.hub, folder, "relay", "relay", environ)
        relay.log.wait_for("listening on")
        hosts = [ethernet.host() for _ in range(2)]
        for host in hosts:
            # --masquerade wants it, and a container's is read-only.
            host.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
        members = [
            Machine(stack, host, folder, f"host{number}", "member", environ) for number, host in enumerate(hosts, 1)
        ]
        addresses = [member.log.wait_for(r"connected as ([0-9.]+)/")[1] for member in members]
        print(f"ok  a relay, and the members {' and '.join(addresses)}", flush=True)
        for host, address in zip(hosts, reversed(addresses), strict=True):
            if " 0% packet loss" not in (answered := ping(host, address)):
                raise Failed(f"one machine does not reach the other:\n{answered}")
        print("ok  they ping each other", flush=True)
        shown = relay.run("candy-server", "members")
        if not all(address in shown for address in addresses):
            raise Failed(f"candy-server members in the container does not show them:\n{shown}")
        if "connected" not in (shown := members[0].run("candy-client", "status")):
            raise Failed(f"candy-client status in the container:\n{shown}")
        print("ok  commands in the containers answer", flush=True)
        for machine in (*members, relay):
            machine.stop()
        print("ok  they end when they are asked to", flush=True)


def main() -> None:
    """Make the base, build, start, look."""
    if os.geteuid() != 0:
        sys.exit("image: only root can start containers")
    try:
        environ = environment()
        make_base(environ)
        build(environ)
        check(environ)
    except (Failed, AssertionError) as failed:
        sys.exit(f"image: {failed}")


if __name__ == "__main__":
    main()
