"""The older candy of kit/reference.py: where it is found, where it is not, and how its build is kept.

The repositories are the tests' own; their one commit builds a `candy` without an engine.
"""

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from kit import reference
from kit.reference import CHECKOUT, COMMIT, ReferenceFailed, build, why_absent

SETUP = """import pathlib, sys
assert sys.argv[1:] == ["-q", "build_ext", "--inplace"]
assert not pathlib.Path("candy/built").exists()
pathlib.Path("candy/built").write_text(sys.executable)
"""
BROKEN = SETUP + "sys.exit('no compiler')\n"


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgSign=false"]
    command = ["git", *identity, "-c", "protocol.file.allow=always", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


def commit(folder: Path, setup: str) -> str:
    """Commit a tree with this setup.py; its hash."""
    (folder / "candy").mkdir(exist_ok=True)
    (folder / "candy" / "__init__.py").touch()
    (folder / "setup.py").write_text(setup)
    for name in ("LICENSE", "README.md", "pyproject.toml"):
        (folder / name).touch()
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "A commit")
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    if shutil.which("git") is None:
        pytest.skip("needs git: run scripts/bootstrap.sh tools")
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "-q")
    return folder


def test_the_commit_is_named_in_one_place() -> None:
    named = [
        path
        for folder in ("tests", "bench", "scripts", "candy")
        for path in (CHECKOUT / folder).rglob("*")
        if path.suffix in (".py", ".sh", ".pyx", ".pxi", ".pxd") and COMMIT[:7] in path.read_text()
    ]
    assert named == [CHECKOUT / "tests" / "kit" / "reference.py"]


# Whether the history holds it


def test_a_checkout_holds_its_commits(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the variables of a git hook point."""
    first, second = commit(repository, SETUP), commit(repository, BROKEN)
    git(repository, "worktree", "add", "-q", "../worktree")
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    for checkout in (repository, repository.parent / "worktree"):
        assert [why_absent(checkout, one) for one in (first, second)] == [None, None]


def test_a_shallow_clone_lacks_older_commits(repository: Path) -> None:
    first, second = commit(repository, SETUP), commit(repository, BROKEN)
    git(repository.parent, "clone", "-q", "--depth=1", repository.as_uri(), "shallow")
    shallow = repository.parent / "shallow"
    assert why_absent(shallow, second) is None
    assert why_absent(shallow, first) == (f"this repository has no commit {first[:7]}: git fetch --unshallow brings it")
    git(shallow, "fetch", "-q", "--unshallow")
    assert why_absent(shallow, first) is None


def test_another_history_lacks_the_commit(repository: Path) -> None:
    """Such as that of a distribution, which begins with sources of its own."""
    commit(repository, SETUP)
    assert why_absent(repository) == f"this repository has no commit {COMMIT[:7]}"


def test_sources_without_git_lack_it(repository: Path) -> None:
    """Also where they are unpacked inside of a repository that holds the commit."""
    held = commit(repository, SETUP)
    unpacked = repository / "candy-vpn"
    unpacked.mkdir()
    assert why_absent(unpacked, held) == "these sources are not a git checkout"


def test_what_git_cannot_read_is_a_failure(repository: Path) -> None:
    broken = repository / "broken"
    broken.mkdir()
    (broken / ".git").write_text("gitdir: /nowhere\n")
    with pytest.raises(ReferenceFailed, match=r"git cannot read .*: fatal: not a git repository"):
        why_absent(broken)


def test_a_missing_git_is_a_failure(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(repository))
    with pytest.raises(ReferenceFailed, match=r"git is missing: run scripts/bootstrap.sh tools"):
        why_absent(repository)


# The build


def test_it_is_built_once(repository: Path) -> None:
    """Also by two processes, or threads, at the same time: setup.py refuses to run twice in a folder."""
    held = commit(repository, SETUP)
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(build(repository, held))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    [folder] = set(found)
    assert len(found) == 3
    assert folder.parent == repository / "build" / "reference"
    assert (folder / "candy" / "built").read_text() == sys.executable
    assert sorted(path.name for path in folder.parent.iterdir()) == sorted([folder.name, "lock"])
    (folder / "setup.py").write_text("raise AssertionError('built again')")
    assert build(repository, held) == folder


def test_what_is_half_built_is_not_taken(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A build that failed, and one that was killed, leave nothing that the next one would use."""
    broken, sound = commit(repository, BROKEN), commit(repository, SETUP)
    for _ in range(2):
        with pytest.raises(ReferenceFailed, match=r"setup.py build_ext: exit status 1\nno compiler"):
            build(repository, broken)

    def killed(folder: Path) -> None:
        (folder / "candy" / "built").touch()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(reference, "_compile", killed)
        with pytest.raises(KeyboardInterrupt):
            build(repository, sound)
    assert (build(repository, sound) / "candy" / "built").read_text() == sys.executable


def test_a_commit_of_other_sources_is_a_failure(repository: Path) -> None:
    (repository / "else").touch()
    git(repository, "add", ".")
    git(repository, "commit", "-q", "-m", "Something else")
    held = git(repository, "rev-parse", "HEAD")
    with pytest.raises(ReferenceFailed, match=f"git archive {held[:7]}: fatal: pathspec"):
        build(repository, held)


# What pytest makes of it


def run_pytest(folder: Path, *, git_file: str | None) -> subprocess.CompletedProcess[str]:
    """With CI=true, run a test that needs the older build and one that doesn't, in a checkout with our tests' modules.

    Args:
        git_file: the checkout's .git; None for sources without git.
    """
    tests = folder / "tests"
    tests.mkdir()
    for name in ("kit", "lab", "skips.py"):
        (tests / name).symlink_to(CHECKOUT / "tests" / name)
    if git_file is not None:
        (folder / ".git").write_text(git_file)
    (tests / "conftest.py").write_text('pytest_plugins = ["skips", "lab.builds"]\n')
    (tests / "test_it.py").write_text("def test_old(reference): pass\ndef test_new(): pass\n")
    (folder / "pytest.ini").write_text("[pytest]\npythonpath = tests\nfilterwarnings = error\n")
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:asyncio", "tests"],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "CI": "true"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_an_absent_history_is_said_and_does_not_fail_in_ci(tmp_path: Path) -> None:
    ran = run_pytest(tmp_path, git_file=None)
    assert ran.returncode == 0, ran.stdout
    assert "1 passed, 1 deselected" in ran.stdout
    assert "1 test with an older candy is passed over: these sources are not a git checkout\n" in ran.stdout


def test_any_other_obstacle_fails(tmp_path: Path) -> None:
    ran = run_pytest(tmp_path, git_file="gitdir: /nowhere\n")
    assert ran.returncode == 1, ran.stdout
    assert "1 passed, 1 error" in ran.stdout
    assert "ReferenceFailed" in ran.stdout
