"""Who imports the engine. The other rules about imports are import-linter's: see pyproject.toml."""

import ast
from pathlib import Path

import candy

ROOT = Path(candy.__file__).parent
ADAPTERS = {
    "carrier/secure.py",
    "carrier/tls.py",
    "host/interface.py",
    "member/control.py",
    "member/dial.py",
    "member/doctor.py",
    "member/joining.py",
    "member/legacylinking.py",
    "member/legacyrouting.py",
    "member/lifecycle.py",
    "member/linking.py",
    "member/member.py",
    "member/parts.py",
    "member/sealing.py",
    "relay/sealing.py",
    "relay/actor.py",
    "relay/captures.py",
    "relay/cluster/linkdial.py",
    "relay/cluster/mesh.py",
    "relay/control.py",
    "relay/door.py",
    "relay/interfaces.py",
    "relay/lifecycle.py",
    "relay/relay.py",
    "relay/served.py",
    "relay/stun.py",
    "relay/upgrade.py",
    "sealing/sealer.py",
}
FUNCTIONS = {"primitives.py"}
"""Takes no more of it than functions of bytes."""


def imported(source: str) -> set[str]:
    """The modules that a source names in its imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import():
                names |= {alias.name for alias in node.names}
            case ast.ImportFrom(module=str(module)):
                names |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return names


def test_the_engine_is_imported_by_the_adapters_alone() -> None:
    """import-linter can't tell, because it knows .py files only."""
    importers = {
        str(path.relative_to(ROOT)) for path in ROOT.rglob("*.py") if "candy._fastpath" in imported(path.read_text())
    }
    assert importers == ADAPTERS | FUNCTIONS
