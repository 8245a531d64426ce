"""The older candy that every later one is compared and paired with: its commit, and how it is built from git's history.

    why_absent(checkout) ─▶ None ─▶ build(checkout) ─▶ build/reference/<commit>-<ABI>, a folder that holds `candy`

Rules:
 1. Only a checkout whose history lacks the commit has no reference: a shallow clone, or sources without git. Any other
    obstacle is an error.
 2. A folder gets its final name when the build in it has finished. One process builds at a time, and others wait.
"""

import fcntl
import io
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path

COMMIT = "14846a9548bf94d070e92e1e8b62a3a0f4d107cf"
"""The last commit before candy/ got folders by side. It is the baseline in two ways: its relay and its client have to
work with those of this tree, and this tree's engine may not be slower than its engine. It stays the same commit, so
that small losses don't add up."""

CHECKOUT = Path(__file__).parent.parent.parent
SOURCES = ("LICENSE", "README.md", "candy", "pyproject.toml", "setup.py")
"""What the build of that commit reads."""


class ReferenceFailed(Exception):
    """The history holds the commit, or may hold it, but the build could not be made."""


def _git(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    # A git hook that runs the tests has variables that point git elsewhere.
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")} | {"LC_ALL": "C"}
    # Root may run the tests in another user's checkout.
    command = ["git", "-c", "safe.directory=*", *arguments]
    try:
        return subprocess.run(command, cwd=checkout, env=environ, capture_output=True, check=False)
    except FileNotFoundError:
        raise ReferenceFailed("git is missing: run scripts/bootstrap.sh tools") from None


def why_absent(checkout: Path = CHECKOUT, commit: str = COMMIT) -> str | None:
    """Why this checkout's history lacks the commit; None: it holds the commit."""
    # Sources may lie inside of somebody's repository, which git would find.
    if not (checkout / ".git").exists():
        return "these sources are not a git checkout"
    found = _git(checkout, "rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}")
    if found.returncode == 0:
        return None
    if found.returncode != 1:
        raise ReferenceFailed(f"git cannot read {checkout}: {found.stderr.decode().strip()}")
    shallow = _git(checkout, "rev-parse", "--is-shallow-repository").stdout.strip() == b"true"
    missing = f"this repository has no commit {commit[:7]}"
    return f"{missing}: git fetch --unshallow brings it" if shallow else missing


def build(checkout: Path = CHECKOUT, commit: str = COMMIT) -> Path:
    """Build that commit's candy, unless that was done before.

    Returns:
        The folder for PYTHONPATH, with the extension compiled for the running interpreter.
    """
    cache = checkout / "build" / "reference"
    folder = cache / f"{commit}-{sysconfig.get_config_var('SOABI')}"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            partial = cache / "partial"
            # A killed process leaves one.
            if partial.exists():
                shutil.rmtree(partial)
            _extract(checkout, commit, partial)
            _compile(partial)
            partial.rename(folder)
    return folder


def _extract(checkout: Path, commit: str, folder: Path) -> None:
    archive = _git(checkout, "archive", "--format=tar", commit, *SOURCES)
    if archive.returncode != 0:
        raise ReferenceFailed(f"git archive {commit[:7]}: {archive.stderr.decode().strip()}")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as packed:
        packed.extractall(folder, filter="data")


def _compile(folder: Path) -> None:
    # How this tree is built says nothing about that one.
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("CANDY_", "PYTHON"))}
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    built = subprocess.run(
        command, cwd=folder, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if built.returncode != 0:
        raise ReferenceFailed(f"setup.py build_ext: exit status {built.returncode}\n{built.stdout}")
