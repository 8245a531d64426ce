"""A relay as users start it, for all tests of a module, and what they use at it: fixtures, known to every test.

Rules: a module that wants other settings defines a `relay` of its own, and the rest follows it. One that is marked
`carriers` runs with TLS as well, but for tests that are marked `plain`. A module whose tests
may cost nobody else anything says so: `pytestmark = pytest.mark.usefixtures("nobody_else_is_disturbed")`.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
import trustme
from lab.member import Member
from lab.pair import Pair
from lab.programs import RelayProgram

from candy import _fastpath
from candy.protocol.wire import DropReason

POOL = "192.168.202.0/24"
"""What a relay grants addresses from unless it is told otherwise."""
Count = Callable[[str], int]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.definition.get_closest_marker("carriers") and "scheme" in metafunc.fixturenames:
        is_plain = metafunc.definition.get_closest_marker("plain") is not None
        metafunc.parametrize("scheme", ["ws"] if is_plain else ["ws", "wss"], indirect=True, scope="module")


@pytest.fixture(scope="module")
def scheme(request: pytest.FixtureRequest) -> str:
    """By which members come."""
    return getattr(request, "param", "ws")


@pytest.fixture(scope="module")
def certified(scheme: str, authority: trustme.CA) -> trustme.CA | None:
    """Who has to certify the relay."""
    return authority if scheme == "wss" else None


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory, certified: trustme.CA | None) -> Iterator[RelayProgram]:
    with RelayProgram(tmp_path_factory.mktemp("relay"), authority=certified) as relay:
        yield relay


@pytest.fixture(scope="module")
def pair(relay: RelayProgram) -> Iterator[Pair]:
    """Two members that exchange packets all the time."""
    with Pair(relay.address) as pair:
        yield pair


@pytest.fixture
def nobody_else_is_disturbed(pair: Pair) -> Iterator[None]:
    yield
    pair.check()


@pytest.fixture
def member(relay: RelayProgram) -> Iterator[Member]:
    """Upgraded, and no more."""
    with Member.connect(relay.address) as member:
        yield member


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """What a test enters here is left at its end, in reverse order."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def counted(relay: RelayProgram) -> Count:
    """How often something was dropped under a name since the test began."""
    before = relay.counters()

    def count(reason: str) -> int:
        # A name that nothing is dropped under would be a count of 0 for ever.
        assert reason in {*_fastpath.DROPS, *DropReason}
        return (relay.counters() - before)[f"dropped {reason}"]

    return count
