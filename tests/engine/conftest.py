"""Interleavings need a build of the engine that can hold threads; with the fast one test_variants.py makes it."""

from pathlib import Path

import pytest
from kit import peer
from kit.secure import Secured

from candy import _fastpath

HOLDING = [path.name for path in Path(__file__).parent.glob("test_*interleavings.py")]
collect_ignore = ["test_variants.py"] if _fastpath.HAS_POINTS else HOLDING


@pytest.fixture(scope="session")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Secured:
    return Secured(tmp_path_factory.mktemp("secured"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What is about a plain connection alone runs over that."""
    plain = [item for item in items if item.get_closest_marker("plain") and "wss" in item.name]
    if plain:
        config.hook.pytest_deselected(items=plain)
        items[:] = [item for item in items if item not in plain]


@pytest.fixture(params=["ws", "wss"])
def carrier(request: pytest.FixtureRequest, secured: Secured, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test runs over plain connections, and again with TLS on each."""
    if request.param == "wss":
        monkeypatch.setattr(peer, "DEFAULT_TLS", secured)
