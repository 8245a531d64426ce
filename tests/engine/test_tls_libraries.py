"""The engine's TLS over each libssl 3.x that the machine has beside Python's own: packages carry later ones.

A second one can't be loaded beside the first, so the tests run in a process that has it for its first.
"""

import os
import site
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.engine

TESTS = ("test_tls.py", "test_tls_hostile.py")
LIBRARIES = [path for folder in site.getsitepackages() for path in sorted(Path(folder).glob("*.libs/libssl*.so.3*"))]


@pytest.mark.skipif(not LIBRARIES, reason="no package here carries a libssl 3.x")
@pytest.mark.parametrize("library", LIBRARIES, ids=lambda path: path.parent.name)
def test_over_another_library(library: Path, tmp_path: Path) -> None:
    [crypto] = library.parent.glob("libcrypto*.so.3*")
    (tmp_path / "libssl.so.3").symlink_to(library)
    (tmp_path / "libcrypto.so.3").symlink_to(crypto)
    environ = os.environ | {"LD_LIBRARY_PATH": str(tmp_path)}
    loaded = _run("-c", "import ssl; print(ssl.OPENSSL_VERSION)", environ=environ)
    if (found := loaded.stdout.strip()) == _run("-c", "import ssl; print(ssl.OPENSSL_VERSION)").stdout.strip():
        pytest.skip(f"this Python has {found} within itself")
    done = _run("-m", "pytest", "-q", *(str(Path(__file__).parent / name) for name in TESTS), environ=environ)
    assert done.returncode == 0, f"{found}: {done.stdout}"


def _run(*arguments: str, environ: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
