"""candy-client's subcommands about its own keys: what they read, write, print, and what they say of mistakes.

A whole `join` is in test_joining.py, and with programs in tests/netns.
"""

import stat
import tomllib
from ipaddress import IPv4Interface
from pathlib import Path

import pytest
from click.testing import CliRunner
from lab.commands import Ran, call, join, refuse

from candy.cli import client as client_command
from candy.errors import OperationalError
from candy.member import joining
from candy.member.keys import MemberKeys
from candy.member.login import Ticket
from candy.member.settings import MemberSettings
from candy.member.trust import Known, shown_network, shown_relay
from candy.protocol.keys import fingerprint
from candy.protocol.link import Invitation, Link
from candy.protocol.secret import Secret
from candy.sealing.seals import Seal

pytestmark = pytest.mark.usefixtures("state", "log_level")

NETWORK, RELAY_KEY, PIN = bytes([1]) * 32, bytes([2]) * 32, bytes([6]) * 32
INVITATION = Invitation(RELAY_KEY, 0, 1_800_000_000, bytes([3]) * 16, bytes([4]) * 32, 1 << 40)
LINK = f"wss://relay.example/home#{Link(NETWORK, INVITATION, PIN).encode()}"
LINE = f"wss://relay.example/home#{Link(NETWORK, pin=PIN).encode()}"
ADDRESS = IPv4Interface("192.168.202.7/24")


class Joined(list[tuple[MemberSettings, Invitation]]):
    """What was to be redeemed."""

    failure: OperationalError | None = None

    def join(self, settings: MemberSettings, invitation: Invitation) -> IPv4Interface:
        self.append((settings, invitation))
        if self.failure is not None:
            raise self.failure
        MemberKeys(settings.state_dir, settings.name).keep_ticket(Ticket(bytes(16), bytes(32)))
        return ADDRESS


@pytest.fixture
def joined(monkeypatch: pytest.MonkeyPatch) -> Joined:
    joined = Joined()
    monkeypatch.setattr(joining, "join", joined.join)
    return joined


def test_join_writes_what_to_start_with(joined: Joined, state: Path, tmp_path: Path, ran: Ran) -> None:
    file = tmp_path / "new" / "home.toml"
    result = call(client_command.main, "-n", "home", "--mtu", "1300", "-c", str(file), "join", LINK)
    assert (result.exit_code, result.stderr) == (0, "")
    [(settings, invitation)] = joined
    assert invitation == INVITATION
    assert (settings.network_key, settings.pins_of(settings.url), settings.name) == (NETWORK, (PIN,), "home")
    device = MemberKeys(state, "home").device(bytes)
    assert result.stdout.splitlines() == [
        f"joined as {ADDRESS}; this device is {fingerprint(device.public)}",
        f"the network's key is {fingerprint(NETWORK)}",
        f"start it with candy-client -c {file}",
    ]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert tomllib.loads(file.read_text()) == {"websocket": LINE, "name": "home", "mtu": 1300}
    # With which it starts, without a password.
    settings, said = join(ran, "-c", str(file))
    assert said == ""
    assert (settings.password, settings.url, settings.network_key) == (None, "wss://relay.example/home", NETWORK)


def test_the_link_from_standard_input(joined: Joined, tmp_path: Path) -> None:
    line = ["-c", str(tmp_path / "client.toml"), "join", "-"]
    result = CliRunner().invoke(client_command.main, line, input=f"{LINK}\n")
    assert result.exit_code == 0
    assert joined[0][1] == INVITATION
    result = CliRunner().invoke(client_command.main, line, input="\n")
    assert (result.exit_code, result.stderr) == (
        2,
        "candy-client: there is no link on standard input: paste it there, and press return\n",
    )


def test_a_file_of_its_own_by_default(joined: Joined, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert call(client_command.main, "join", LINK).exit_code == 0
    assert (tmp_path / "candy" / "client.toml").exists()
    assert joined[0][0].name is None


def test_a_join_that_failed_leaves_no_file_and_can_be_repeated(joined: Joined, tmp_path: Path) -> None:
    file = tmp_path / "client.toml"
    joined.failure = OperationalError("the relay does not answer")
    result = call(client_command.main, "-c", str(file), "join", LINK)
    assert (result.exit_code, result.stderr) == (1, "candy-client: the relay does not answer\n")
    assert not file.exists()
    joined.failure = None
    for _ in range(2):
        assert call(client_command.main, "-c", str(file), "join", LINK).exit_code == 0


def test_join_writes_over_nothing(joined: Joined, tmp_path: Path) -> None:
    file = tmp_path / "client.toml"
    file.write_text("mine")
    assert f"{file} is there already" in refuse(client_command.main, "-c", str(file), "join", LINK)
    assert (file.read_text(), joined) == ("mine", [])


@pytest.mark.parametrize(
    ("link", "said"),
    [
        ("wss://relay.example", "the link has no network's key behind its #"),
        (LINK[:-4], "the link is cut off"),
        (LINE, "the link invites nobody"),
        (f"https://relay#{LINK.partition('#')[2]}", "--websocket: 'https://relay' is not a WebSocket URL"),
        (
            f"wss://relay#{Link(NETWORK, Invitation(RELAY_KEY, 0, 1, bytes(16), bytes(32), 86400)).encode()}",
            "the invitation expired at 1970-01-02 00:00 UTC, by this machine's clock",
        ),
    ],
)
def test_links_that_are_none(joined: Joined, tmp_path: Path, link: str, said: str) -> None:
    line = refuse(client_command.main, "-c", str(tmp_path / "client.toml"), "join", link)
    assert said in line
    assert link.partition("#")[2] not in line or "#" not in link
    assert (list(tmp_path.iterdir()), joined) == ([], [])


def test_an_invitation_is_no_line(ran: Ran) -> None:
    line = refuse(client_command.main, "-w", LINK, "-p", "pw")
    assert "'wss://relay.example/home#…' is an invitation, which lets in once: run candy-client join with it" in line
    assert "-w: the link names the relay" in refuse(client_command.main, "-w", LINE, "join", LINK)


def test_accept_a_network(state: Path) -> None:
    keys = MemberKeys(state)
    keys.keep_known(Known(0, RELAY_KEY, 5, (NETWORK,)))
    assert call(client_command.main, "accept", shown_network(PIN)).exit_code == 0
    assert (known := keys.known()) is not None
    assert known.passed == (NETWORK, PIN)
    # With the line of the configuration, which names another.
    assert (
        call(client_command.main, "-w", LINE.replace("wss:", "ws:"), "accept", shown_network(RELAY_KEY)).exit_code == 0
    )
    assert (known := keys.known()) is not None
    assert known.passed == (NETWORK, PIN, RELAY_KEY)


def test_accept_a_relay(state: Path) -> None:
    keys = MemberKeys(state, "home")
    said = refuse(client_command.main, "-n", "home", "accept", shown_relay(PIN))
    assert "knows no relay yet" in said
    keys.keep_known(Known(0, RELAY_KEY, 5, (NETWORK,)))
    assert call(client_command.main, "-n", "home", "accept", shown_relay(PIN)).exit_code == 0
    assert (known := keys.known()) is not None
    assert known.relay == PIN
    assert "is not a key as a refusal names it" in refuse(client_command.main, "accept", "AAAA")


def test_a_secret(tmp_path: Path) -> None:
    printed = call(client_command.main, "secret", "new").stdout
    assert Secret.parse(printed.encode()).random is not None
    file = tmp_path / "secret"
    result = call(client_command.main, "secret", "new", str(file))
    assert (result.exit_code, result.stdout) == (0, "")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    secret = Secret.parse(file.read_bytes())
    assert secret.random is not None
    assert f"{file} is there already" in refuse(client_command.main, "secret", "new", str(file))
    assert Secret.parse(file.read_bytes()) == secret
    result = call(client_command.main, "secret", "new", "/proc/none/secret")
    assert (result.exit_code, result.stderr) == (
        1,
        "candy-client: cannot write /proc/none/secret: No such file or directory: name another file\n",
    )


def test_a_secret_is_read_from_its_file(ran: Ran, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("a text\n")
    settings, said = join(ran, "-w", "ws://relay", "--password-file", str(file), "--secret", str(file))
    assert settings.secret == Secret(None, b"a text")
    assert "a text" not in repr(settings)
    assert settings.seals is Seal.REQUIRE
    assert said == ""
    line = ["-w", "ws://relay", "-p", "pw", "--secret"]
    assert "remove one of them" in refuse(client_command.main, *line, str(file), "--seal", "off")
    file.write_text("candy-secret-1:AAAA\n")
    assert f"--secret: {file} was cut off" in refuse(client_command.main, *line, str(file))
    assert f"--secret: cannot read {file}2: " in refuse(client_command.main, *line, f"{file}2")
    file.chmod(0o644)
    file.write_text("candy-secret-1:" + "A" * 43)
    assert f"--secret: every user of this machine can read {file}: chmod 600 {file}" in join(ran, *line, str(file))[1]


def test_a_damaged_credential_is_said(ran: Ran, state: Path) -> None:
    (state / "credential").mkdir(parents=True)
    (state / "credential" / "__noname__").write_text("AAAA\n")
    result = call(client_command.main, "-w", LINE, "--check")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"candy-client: {state}/credential/__noname__ is damaged")
    assert result.stderr.count("\n") == 1
