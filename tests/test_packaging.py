"""What a stranger meets first: the distribution, the build's answers, the bootstrap, CI's rule about skipping."""

import importlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import candy

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def run(*command: str | Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, env=os.environ | environ, capture_output=True, text=True, check=False)


def test_commands_exist() -> None:
    assert set(PROJECT["scripts"]) == {"candy-server", "candy-client"}
    for name, target in PROJECT["scripts"].items():
        module, _, attribute = target.partition(":")
        assert getattr(importlib.import_module(module), attribute).name == name


def test_ci_runs_the_tests() -> None:
    script = ROOT / ".ci" / "run"
    assert script.read_text() == "#!/bin/sh\nexec make test\n"
    assert os.access(script, os.X_OK)


# The distribution


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution, unpacked; made from a copy, for the build writes into its folder."""
    folder = tmp_path_factory.mktemp("sdist")
    left_out = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, folder / "source", ignore=left_out)
    subprocess.run([sys.executable, "setup.py", "-q", "sdist", "--dist-dir", folder], cwd=folder / "source", check=True)
    [archive] = folder.glob("*.tar.gz")
    assert archive.name == f"candy_vpn-{candy.__version__}.tar.gz"
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    return folder / archive.name.removesuffix(".tar.gz")


def test_sdist_holds_all_sources_and_nothing_generated(sdist: Path) -> None:
    held = {str(path.relative_to(sdist)) for path in sdist.rglob("*")}
    sources = {
        str(path.relative_to(ROOT))
        for folder in ("candy", "tests", "scripts")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix in (".py", ".pyi", ".pyx", ".pxd", ".pxi", ".h", ".sh", ".toml", ".cfg")
    }
    assert {"candy/_fastpath.pyx", "candy/_fastpath.pyi", "candy/examples/server.toml"} <= sources
    assert sources | {"LICENSE", "Makefile", "README.md", "candy/py.typed", "setup.py"} <= held
    assert not [name for name in held if name.endswith((".c", ".so", ".pyc"))]


def test_wheel_from_the_sdist_works_alone(sdist: Path, tmp_path: Path) -> None:
    """As pip does it, with what the build requires here already, and compiled quickly."""
    build = [sys.executable, "setup.py", "-q", "bdist_wheel", "--dist-dir", str(tmp_path)]
    subprocess.run(build, cwd=sdist, env=os.environ | {"CANDY_BUILD": "mutant"}, check=True)
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(tmp_path / "site")
    names = {str(path.relative_to(tmp_path / "site")) for path in (tmp_path / "site" / "candy").rglob("*")}
    assert {"candy/py.typed", "candy/_fastpath.pyi", "candy/examples/client.toml"} <= names
    assert {f"candy/control/page/{path.name}" for path in (ROOT / "candy" / "control" / "page").iterdir()} <= names
    assert not [name for name in names if name.endswith((".pyx", ".pxi", ".pxd", ".c", ".h"))]
    [metadata] = (tmp_path / "site").glob("candy_vpn-*.dist-info/METADATA")
    assert "License-Expression: MIT" in metadata.read_text().splitlines()
    shown = subprocess.run(
        [sys.executable, "-P", "-c", "import candy._fastpath as engine; print(engine.__file__, engine.VERSION)"],
        env=os.environ | {"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert shown.startswith(f"{tmp_path}/site/candy/_fastpath.")


def test_the_wheel_in_short(tmp_path: Path) -> None:
    """What make wheel and make try-wheel do, with the engine that is built already: its name, what is in it, and
    commands that run without this checkout."""
    source = tmp_path / "source"
    left_out = shutil.ignore_patterns(".*", "build", "dist", "tests", "*.egg-info", "__pycache__", "*.so")
    shutil.copytree(ROOT, source, ignore=left_out)
    (source / "setup.cfg").write_text("[build]\nbuild_lib = lib\n")
    (source / "lib/candy").mkdir(parents=True)
    [engine] = (ROOT / "candy").glob("_fastpath*.so")
    shutil.copy(engine, source / "lib/candy")
    build = ("setup.py", "-q", "build_py", "bdist_wheel", "--skip-build", "--dist-dir", tmp_path / "raw")
    subprocess.run([sys.executable, *build], cwd=source, check=True)
    [raw] = (tmp_path / "raw").glob("*.whl")
    programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    repaired = run(sys.executable, "-m", "auditwheel", "repair", "--wheel-dir", tmp_path, raw, PATH=programs)
    assert repaired.returncode == 0, repaired.stderr
    [wheel] = tmp_path.glob("*.whl")
    # Debian 12 has glibc 2.36; on a newer one the name may say so.
    named = rf"candy_vpn-{candy.__version__}-cp3\d+-cp3\d+-manylinux_2_(\d+)_{os.uname().machine}\.whl"
    assert re.fullmatch(named, wheel.name)
    with zipfile.ZipFile(wheel) as packed:
        names = set(packed.namelist())
        [metadata] = (packed.read(name).decode() for name in names if name.endswith(".dist-info/METADATA"))
        [points] = (packed.read(name).decode() for name in names if name.endswith(".dist-info/entry_points.txt"))
    held = {str(path.relative_to(ROOT)) for path in (ROOT / "candy").rglob("*.py")}
    assert held | {f"candy/{engine.name}", "candy/py.typed", "candy/examples/server.toml"} <= names
    assert {f"candy/units/{path.name}" for path in (ROOT / "candy/units").iterdir()} <= names
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"candy", "candy_vpn"}
    needed = {
        Requirement(line.removeprefix("Requires-Dist: "))
        for line in metadata.splitlines()
        if line.startswith("Requires-Dist")
    }
    assert set(map(Requirement, PROJECT["dependencies"])) <= needed
    assert f"Requires-Python: {PROJECT['requires-python']}" in metadata.splitlines()
    assert points.split() == ["[console_scripts]"] + [
        word for name, target in sorted(PROJECT["scripts"].items()) for word in (name, "=", target)
    ]
    site = tmp_path / "site"
    install = ("-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", site, wheel)
    subprocess.run([sys.executable, *install], check=True)
    for command in PROJECT["scripts"]:
        environ = {"PYTHONPATH": str(site), "PATH": "/nowhere"}
        said = subprocess.run(
            [site / "bin" / command, "--version"], cwd="/", env=environ, capture_output=True, text=True
        )
        assert (said.returncode, said.stdout) == (0, f"{command} {candy.__version__}\n"), said.stderr
    code = "import candy._fastpath as engine; print(engine.__file__)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd="/", env=environ, capture_output=True, text=True, check=True
    )
    assert loaded.stdout == f"{site}/candy/{engine.name}\n"


# The build's answers


def test_build_elsewhere_than_on_linux() -> None:
    code = "import runpy, sys; sys.platform = 'darwin'; runpy.run_path('setup.py')"
    built = run(sys.executable, "-c", code)
    assert built.returncode == 1
    assert built.stderr == "candy-vpn needs Linux (TUN devices, epoll): it can't be built on darwin\n"


def test_build_of_an_unknown_kind() -> None:
    built = run(sys.executable, "setup.py", "--version", CANDY_BUILD="quick")
    assert built.returncode == 1
    assert built.stderr == "CANDY_BUILD=quick is unknown: use one of fast, debug, asan, tsan, mutant\n"


# The bootstrap, with programs of the test's own in place of the system's


class Machine:
    """A PATH that holds only what is put there."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "bin"
        self.log = folder / "log"
        self.bin.mkdir()
        self.put("uname", "echo Linux")
        self.put("id", "echo 1000")
        self.put("cc", "")
        self.put("clang", "")
        self.put("chromium", "")
        tools = "ip ping iperf3 curl tcpdump nft git nginx haproxy caddy prometheus"
        for tool in f"{tools} debootstrap podman runc systemd-nspawn".split():
            self.put(tool, "")
        self.put("python3", f'exec {sys.executable} "$@"')

    def put(self, name: str, script: str) -> None:
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def become_root(self) -> None:
        """Root, with an apt that logs and provides what it is asked for."""
        self.put("id", "echo 0")
        self.put("apt-get", f'echo "$@" >>{self.log}')

    def bootstrap(self, what: str, python: str = "python3") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["/bin/sh", ROOT / "scripts" / "bootstrap.sh", what],
            env={"PATH": str(self.bin), "PYTHON": python},
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize("what", ["python", "tools", "browser", "fuzzer", "containers", "machines"])
def test_bootstrap_with_all_there(machine: Machine, what: str) -> None:
    done = machine.bootstrap(what)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def python_without(module: str, prefix: str = "/usr") -> str:
    """A python3 that answers the bootstrap's questions as one without this module (or file)."""
    return f"""case "$2" in
*{module}*) exit 1 ;;
*base_prefix*) echo {prefix} ;;
*) exec {sys.executable} "$@" ;;
esac"""


VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("ensurepip", f"candy: python3-venv is missing: apt install python{VERSION}-venv\n"),
        ("Python.h", f"candy: Python.h (python3-dev) is missing: apt install python{VERSION}-dev\n"),
    ],
)
def test_bootstrap_names_what_python_misses(machine: Machine, module: str, line: str) -> None:
    machine.put("python3", python_without(module))
    done = machine.bootstrap("python")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", line)


def test_bootstrap_cannot_complete_a_python_of_the_users_own(machine: Machine) -> None:
    machine.become_root()
    machine.put("python3", python_without("Python.h", prefix="/opt/python"))
    done = machine.bootstrap("python")
    assert done.returncode == 1
    assert done.stderr == (
        f"candy: Python.h (python3-dev) of {machine.bin}/python3 is missing: install it, or choose another Python "
        "with make PYTHON=...\n"
    )
    assert not machine.log.exists()


def test_bootstrap_installs_what_python_misses(machine: Machine) -> None:
    machine.become_root()
    machine.put("python3", python_without("ensurepip"))
    done = machine.bootstrap("python")
    assert (done.returncode, done.stdout) == (0, f"install python{VERSION}-venv\n")
    assert f"install -y -qq --no-install-recommends python{VERSION}-venv" in machine.log.read_text().splitlines()


@pytest.mark.parametrize(
    ("name", "script", "line"),
    [
        ("uname", "echo Darwin", "candy: needs Linux, and this is Darwin\n"),
        (
            "python3",
            'case "$1" in -V) echo Python 3.9.2 ;; *) exit 1 ;; esac',
            "candy: Python 3.9.2 is too old: 3.11 or newer is needed, choose it with make PYTHON=python3.11\n",
        ),
    ],
)
def test_bootstrap_refuses(machine: Machine, name: str, script: str, line: str) -> None:
    machine.put(name, script)
    done = machine.bootstrap("python")
    assert (done.returncode, done.stderr) == (1, line)


def test_bootstrap_without_that_python(machine: Machine) -> None:
    done = machine.bootstrap("python", python="python9")
    assert (done.returncode, done.stderr) == (
        1,
        "candy: python9 is missing: apt install python3, or make PYTHON=...\n",
    )


def test_bootstrap_names_missing_tools(machine: Machine) -> None:
    (machine.bin / "iperf3").unlink()
    (machine.bin / "ping").unlink()
    done = machine.bootstrap("tools")
    line = "candy: iputils-ping iperf3 is missing: apt install iputils-ping iperf3\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", line)


def test_bootstrap_names_what_boots_a_machine(machine: Machine) -> None:
    (machine.bin / "systemd-nspawn").unlink()
    done = machine.bootstrap("machines")
    line = "candy: systemd-container is missing: apt install systemd-container\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", line)


def test_bootstrap_without_a_browser(machine: Machine) -> None:
    (machine.bin / "chromium").unlink()
    done = machine.bootstrap("browser")
    assert (done.returncode, done.stderr) == (1, "candy: chromium is missing: apt install chromium\n")


def test_bootstrap_names_what_the_fuzzers_miss(machine: Machine) -> None:
    machine.put("clang", '[ "$1" != -dumpversion ] || { echo 14.0.6; exit; }; exit 1')
    done = machine.bootstrap("fuzzer")
    assert (done.returncode, done.stderr) == (1, "candy: libFuzzer is missing: apt install libclang-rt-14-dev\n")
    (machine.bin / "clang").unlink()
    done = machine.bootstrap("fuzzer")
    assert (done.returncode, done.stderr) == (1, "candy: clang is missing: apt install clang\n")


def test_bootstrap_installs_missing_tools_with_old_package_lists(machine: Machine) -> None:
    machine.become_root()
    machine.put(
        "apt-get",
        f'echo "$1" >>{machine.log}; [ "$1" = update ] && touch {machine.log}.fresh; [ -e {machine.log}.fresh ]',
    )
    machine.put("touch", 'exec /usr/bin/touch "$@"')
    (machine.bin / "curl").unlink()
    done = machine.bootstrap("tools")
    assert (done.returncode, done.stdout, done.stderr) == (0, "install curl\n", "")
    assert machine.log.read_text().split()[-2:] == ["update", "install"]


def test_bootstrap_when_apt_has_nothing(machine: Machine) -> None:
    machine.become_root()
    machine.put("apt-get", "echo E: no network >&2; exit 100")
    (machine.bin / "curl").unlink()
    done = machine.bootstrap("tools")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("candy: curl is missing, and ")


# CI's rule


SKIPPING = {
    "test": "import pytest\n\ndef test_it():\n    pytest.skip('not today')\n",
    "mark": "import pytest\n\n@pytest.mark.skip(reason='not today')\ndef test_it():\n    pass\n",
    "file": "import pytest\n\npytest.skip('not today', allow_module_level=True)\n",
}


@pytest.mark.parametrize("where", SKIPPING)
def test_a_skip_is_a_failure_in_ci(where: str, tmp_path: Path) -> None:
    shutil.copy(ROOT / "tests" / "skips.py", tmp_path / "conftest.py")
    (tmp_path / "test_skipping.py").write_text(SKIPPING[where])
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-rs",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        tmp_path,
        tmp_path,
    ]
    elsewhere = run(*command, CI="")
    assert "1 skipped" in elsewhere.stdout, elsewhere.stdout
    ci = run(*command, CI="true")
    assert ci.returncode in (1, 2)
    assert "nothing may be skipped with CI=true: " in ci.stdout
    assert "not today" in ci.stdout


def test_the_rule_is_in_force_here(pytestconfig: pytest.Config) -> None:
    """Pytest has plugins of its own, and would keep one of the same name instead."""
    [rule] = [plugin for name, plugin in pytestconfig.pluginmanager.list_name_plugin() if name == "skips"]
    assert getattr(rule, "__file__", None) == str(ROOT / "tests" / "skips.py")


def test_an_expected_failure_is_no_skip(tmp_path: Path) -> None:
    shutil.copy(ROOT / "tests" / "skips.py", tmp_path / "conftest.py")
    (tmp_path / "test_it.py").write_text("import pytest\n\n@pytest.mark.xfail\ndef test_it():\n    assert False\n")
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        tmp_path,
        tmp_path,
    ]
    assert run(*command, CI="true").returncode == 0


def test_what_is_installed_along_is_what_candy_imports() -> None:
    """Libraries of the benchmarks, the demo and the tests come with [dev]."""
    sources = "".join(path.read_text() for path in (ROOT / "candy").rglob("*.py"))
    imported = set(re.findall(r"^\s*(?:import|from) (\w+)", sources, re.MULTILINE))
    names = (re.match(r"[a-z0-9-]+", dependency) for dependency in PROJECT["dependencies"])
    assert {name[0].removeprefix("python-").replace("-", "_") for name in names if name} <= imported
