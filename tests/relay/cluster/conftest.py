"""Servers of NATS for the tests of this folder."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from kit.nats import Servers

from candy.relay.cluster.jetstream import JetStream, connected


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Three servers, for tests that leave them running."""
    servers = Servers(tmp_path_factory.mktemp("nats") / "three")
    servers.start()
    yield servers
    servers.kill()


@pytest.fixture
def one_server(tmp_path: Path) -> Iterator[Servers]:
    """One of one's own."""
    servers = Servers(tmp_path / "nats", 1)
    servers.start()
    yield servers
    servers.kill()


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    """Three of one's own, to be killed."""
    servers = Servers(tmp_path / "nats")
    servers.start()
    yield servers
    servers.kill()


@pytest.fixture
async def jetstream(three: Servers) -> AsyncIterator[JetStream]:
    made = await connected(three.settings())
    yield made
    await made.close()
