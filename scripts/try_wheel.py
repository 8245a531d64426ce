"""The wheels on a machine without a compiler: each installed into a fresh environment of its Python, then two machines
and a relay from it; and the ways to install one that docs/operation.md names, each on a machine of its own.

make try-wheel [PYTHONS="python3.11 python3.13"]      root; network namespaces
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "tests"))

from kit.steps import Fault, steps_elsewhere  # noqa: E402
from lab.machine import ADDRESSES, Machines  # noqa: E402
from lab.namespaces import Ethernet, Namespace  # noqa: E402
from lab.programs import PASSWORD, Program  # noqa: E402
from lab.traffic import ping  # noqa: E402

from candy import __version__  # noqa: E402

PORT = 26816
WHEELS = ROOT / "build/wheels"
"""What the documents' ways install beside candy, for machines that reach no package index."""
INSIDE = "/root/candy/build/wheels"
"""The same, as these machines see it."""
OFFLINE = {
    "PIP_NO_INDEX": "1",
    "PIP_FIND_LINKS": INSIDE,
    "UV_OFFLINE": "1",
    "UV_FIND_LINKS": INSIDE,
    "UV_PYTHON_DOWNLOADS": "never",
}
NEXT = "99.0.0"
"""The version to which each is upgraded."""
QUESTION = "import json, sys; print(json.dumps([*sys.version_info[:2], sys.executable]))"


class Python:
    """One that a wheel is for."""

    def __init__(self, command: str) -> None:
        asked = subprocess.run([command, "-c", QUESTION], check=True, capture_output=True, text=True)
        major, minor, self.executable = json.loads(asked.stdout)
        self.version = f"{major}.{minor}"
        self.tag = f"cp{major}{minor}"

    def wheel(self) -> Path:
        """The newest for it."""
        wheels = sorted((ROOT / "dist").glob(f"*-{self.tag}-*manylinux*.whl"), key=lambda path: path.stat().st_mtime)
        if not wheels:
            sys.exit(f"try-wheel: there is no wheel for Python {self.version} in dist/: make wheel")
        return wheels[-1]

    def install(self, folder: Path) -> Path:
        """Where the commands are then. Nothing may be built: no compiler is in PATH, and pip takes wheels alone."""
        subprocess.run([self.executable, "-m", "venv", folder / "candy"], check=True)
        programs = folder / "candy/bin"
        subprocess.run(
            [programs / "pip", "install", "-q", "--disable-pip-version-check", "--only-binary", ":all:", self.wheel()],
            env={key: value for key, value in os.environ.items() if key.startswith("PIP_")} | {"PATH": str(programs)},
            check=True,
        )
        return programs


def start(stack: ExitStack, where: Namespace, folder: Path, name: str, *argv: str | Path) -> Program:
    """A program of the wheel's, with a state folder of its own, and nothing of this checkout."""
    state, run = folder / name, folder / f"{name}.run"
    run.mkdir()
    environ = {
        "PATH": os.environ["PATH"],
        "CANDY_STATE_DIR": str(state),
        "RUNTIME_DIRECTORY": str(run),
        "CANDY_PASSWORD": PASSWORD,
        "PYTHONUNBUFFERED": "1",
    }
    with where:
        return stack.enter_context(Program(name, list(map(str, argv)), environ))


def join_two(python: Python) -> None:
    """Have one machine ping another, by programs of this Python's wheel."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        programs = python.install(folder)
        ethernet = Ethernet(stack)
        url = f"ws://{Ethernet.ADDRESS}:{PORT}"
        relay = start(stack, ethernet.hub, folder, "relay", programs / "candy-server", "-w", url)
        relay.wait_for("listening on")
        hosts = [ethernet.host() for _ in range(2)]
        addresses = []
        for number, host in enumerate(hosts):
            client = start(stack, host, folder, f"client{number}", programs / "candy-client", "-w", url)
            addresses.append(client.wait_for(r"connected as ([0-9.]+)/")[1])
        answered = ping(hosts[0], addresses[1], "-c", "3", "-i", "0.1")
    if " 0% packet loss" not in answered:
        sys.exit(f"try-wheel: one machine does not reach the other:\n{answered}")
    print(f"try-wheel: {python.wheel().name} installs without a compiler, and carries packets", flush=True)


def newer(wheel: Path, folder: Path) -> Path:
    """The same as the next version, which says so."""
    made = folder / wheel.name.replace(f"-{__version__}-", f"-{NEXT}-")
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(made, "w") as new:
        for name in old.namelist():
            text = old.read(name)
            # Without hashes pip believes it.
            if name.endswith(".dist-info/RECORD"):
                text = b"".join(line.partition(b",")[0] + b",,\n" for line in text.splitlines())
            if name.endswith((".dist-info/RECORD", ".dist-info/METADATA")) or name == "candy/__init__.py":
                text = text.replace(__version__.encode(), NEXT.encode())
            new.writestr(name.replace(f"-{__version__}.dist-info", f"-{NEXT}.dist-info"), text)
    return made


def install_as_written(python: Python) -> None:
    """Each block of the document on a machine of its own, with this Python in place of the one that stands there."""
    shutil.rmtree(WHEELS, ignore_errors=True)
    # pipx gives each program a pip.
    gather = ("-m", "pip", "wheel", "-q", "--disable-pip-version-check", "--wheel-dir", WHEELS)
    subprocess.run([python.executable, *gather, python.wheel(), "pip"], check=True)
    # The document's wheel is the one of dist/.
    (WHEELS / python.wheel().name).unlink(missing_ok=True)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=ROOT / "build")))
        wheels = {__version__: Path(shutil.copy(python.wheel(), folder)), NEXT: newer(python.wheel(), folder)}
        machines = Machines(stack, Path(stack.enter_context(tempfile.TemporaryDirectory())))
        ways = steps_elsewhere("make try-wheel", ROOT / "docs/operation.md")
        for name, step in zip(list(ADDRESSES)[: len(ways)], ways, strict=True):
            machine = machines[name]
            for tool in ("uv", "pipx"):
                machine.write(f"/usr/local/bin/{tool}", f'#!/bin/sh\nexec {ROOT}/.venv/bin/{tool} "$@"\n')
            machine.write(f"/usr/local/bin/python{python.version}", f'#!/bin/sh\nexec {python.executable} "$@"\n')
            settings = " ".join(f"{key}={value}" for key, value in OFFLINE.items())
            machine.run(f"export {settings}; rm -r /opt/candy; chmod +x /usr/local/bin/*; cd /root/candy")
            text = step.text.replace("3.11", python.version).replace("cp311", python.tag)
            where = "/opt/candy/bin" if "/opt/candy" in text else "/usr/local/bin"
            versions = "".join(f"{where}/{command} --version\n" for command in ("candy-server", "candy-client"))
            for version, wheel in wheels.items():
                machine.run(f"rm dist/*.whl; cp build/{folder.name}/{wheel.name} dist\n{text}")
                if (said := machine.run(versions)) != [f"candy-server {version}", f"candy-client {version}"]:
                    sys.exit(f"try-wheel: docs/operation.md, line {step.line}: no candy {version} is there: {said}")
            print(f"try-wheel: {text.splitlines()[-1]}", flush=True)


def main() -> None:
    """All wheels of $PYTHONS, and the ways of the document for the first."""
    if os.geteuid() != 0:
        sys.exit("try-wheel: only root can make network namespaces")
    pythons = [Python(command) for command in os.environ.get("PYTHONS", "").split() or [sys.executable]]
    for python in pythons:
        join_two(python)
    try:
        install_as_written(pythons[0])
    except (AssertionError, Fault) as error:
        sys.exit(f"try-wheel: {error}")


if __name__ == "__main__":
    main()
