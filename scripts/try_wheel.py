"""The wheel on a machine without a compiler: installed into a fresh environment, then two machines and a relay from it.

make try-wheel      root; network namespaces
"""

import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "tests"))

from lab.namespaces import Ethernet, Namespace  # noqa: E402
from lab.programs import PASSWORD, Program  # noqa: E402
from lab.traffic import ping  # noqa: E402

PORT = 26816


def install(wheel: Path, folder: Path) -> Path:
    """Where the commands are then. Nothing may be built: there is no compiler in PATH, and pip takes wheels alone."""
    subprocess.run([sys.executable, "-m", "venv", folder / "candy"], check=True)
    programs = folder / "candy/bin"
    subprocess.run(
        [programs / "pip", "install", "-q", "--disable-pip-version-check", "--only-binary", ":all:", wheel],
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


def main() -> None:
    """Install the newest wheel for this Python, and have one machine ping the other."""
    tag = f"cp{sys.version_info[0]}{sys.version_info[1]}"
    wheels = sorted((ROOT / "dist").glob(f"*-{tag}-*manylinux*.whl"), key=lambda path: path.stat().st_mtime)
    if os.geteuid() != 0 or not wheels:
        sys.exit("try-wheel: needs root, and a wheel in dist/: make wheel")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        programs = install(wheels[-1], folder)
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
    print(f"try-wheel: {wheels[-1].name} installs without a compiler, and carries packets")


if __name__ == "__main__":
    main()
