"""A gateway's forwarding and NAT, in a fresh network namespace: set, taken away, and what is in the way of either."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from pathlib import Path

import pytest
from lab.namespaces import in_new_namespace

import candy
from candy.errors import OperationalError
from candy.host import masquerade
from candy.host.masquerade import Masquerade, about_forwarding, about_input, missing_rules
from candy.host.reconciler import Fact, Part

RULESET = """table ip candy-masquerade {
	chain clamp {
		type filter hook forward priority mangle; policy accept;
		iifname "candy" tcp flags syn tcp option maxseg size set rt mtu
		oifname "candy" tcp flags syn tcp option maxseg size set rt mtu
	}

	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		iifname "candy" oifname != "candy" masquerade
		oifname "candy" iifname != "candy" masquerade
	}
}
"""
NOTE = """table ip candy-ip-forward-was-off {
}
"""


def on_a_machine(test: Callable[[], None]) -> None:
    """Run a function in a network namespace of its own, in which nothing is forwarded."""

    def body() -> None:
        forward("0")
        test()

    in_new_namespace(body)


def forward(value: str) -> None:
    Path("/proc/sys/net/ipv4/ip_forward").write_text(value)


def forwards() -> str:
    return Path("/proc/sys/net/ipv4/ip_forward").read_text().strip()


def nft(*arguments: str) -> str:
    return subprocess.run(["nft", *arguments], check=True, capture_output=True, text=True).stdout


def link(*arguments: str) -> None:
    subprocess.run(["ip", "link", *arguments], check=True)


@pytest.mark.netns
def test_set_and_taken_away() -> None:
    def test() -> None:
        nft("add table ip filter")
        with Masquerade("candy"):
            assert forwards() == "1"
            assert nft("list ruleset") == "table ip filter {\n}\n" + RULESET + NOTE
        assert forwards() == "0"
        assert nft("list ruleset") == "table ip filter {\n}\n"

    on_a_machine(test)


CLOSED = """
table ip filter {
    chain INPUT {
        type filter hook input priority filter; policy drop;
    }
    chain FORWARD {
        type filter hook forward priority filter; policy drop;
        jump DOCKER-USER
    }
    chain DOCKER-USER {
        counter return
    }
}
"""
"""As iptables-nft and Docker make it."""
CLOSED_TOO = """
table inet fence {
    chain between {
        comment "nobody gets through"
        type filter hook forward priority filter; policy drop;
        ct state established,related accept
        iifname { "candy", "lan0" } oifname "wan0" drop
    }
}
"""
OPEN = """
table ip open {
    chain forward {
        type filter hook forward priority filter; policy accept;
    }
}
table ip6 filter {
    chain FORWARD {
        type filter hook forward priority filter; policy drop;
    }
}
"""
BY_IPTABLES = "iptables -I FORWARD -i candy -j ACCEPT && iptables -I FORWARD -o candy -j ACCEPT"
BY_NFT = (
    "nft 'insert rule inet fence between iifname \"candy\" accept' && "
    "nft 'insert rule inet fence between oifname \"candy\" accept'"
)


@pytest.mark.netns
@pytest.mark.parametrize(
    ("rules", "missing"),
    [
        (OPEN, ""),
        (CLOSED, BY_IPTABLES),
        (CLOSED_TOO, BY_NFT),
        (OPEN + CLOSED + CLOSED_TOO, f"{BY_IPTABLES} && {BY_NFT}"),
    ],
)
def test_a_firewall_that_drops_what_is_forwarded(rules: str, missing: str, caplog: pytest.LogCaptureFixture) -> None:
    """The rules are what nft lists of itself; the commands do what they are for."""

    def test() -> None:
        subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)
        before = nft("list ruleset")
        assert missing_rules(before, "candy") == missing
        with Masquerade("candy"):
            warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
            assert warnings == (
                [f"this machine's firewall drops what is forwarded: let packets of candy pass: {missing}"]
                if missing
                else []
            )
        assert nft("list ruleset") == before
        for command in missing.split(" && ") if missing == BY_NFT else ():
            subprocess.run(["sh", "-c", command], check=True)
            assert missing_rules(nft("list ruleset"), "candy") == ""
            assert missing_rules(nft("list ruleset"), "candy2") == BY_NFT.replace("candy", "candy2")

    on_a_machine(test)


CLOSED_IN = """
table ip filter {
    chain INPUT {
        type filter hook input priority filter; policy drop;
        iifname "lo" accept
    }
}
"""


@pytest.mark.netns
def test_a_firewall_that_drops_what_comes_in() -> None:
    """To a machine that forwards nothing, too; the command does what it is for."""

    def test() -> None:
        subprocess.run(["nft", "-f", "-"], input=CLOSED_IN, text=True, check=True)
        ruleset = nft("list ruleset")
        assert about_forwarding(ruleset, "candy") == ""
        told = "members reach nothing on it until that of candy may: iptables -I INPUT -i candy -j ACCEPT"
        assert about_input(ruleset, "candy").endswith(told)
        nft('insert rule ip filter INPUT iifname "candy" accept')
        assert about_input(nft("list ruleset"), "candy") == ""

    on_a_machine(test)


@pytest.mark.netns
def test_what_a_gateway_is_missing() -> None:
    def test() -> None:
        with Masquerade("candy") as gateway:
            assert gateway.missing() == []
            nft("delete table ip candy-masquerade")
            forward("0")
            assert Masquerade("candy").missing() == [
                Fact(Part.TABLE, "candy-masquerade"),
                Fact(Part.FORWARDING, 1),
            ]

    on_a_machine(test)


@pytest.mark.netns
def test_what_was_forwarded_before_still_is() -> None:
    def test() -> None:
        forward("1")
        with Masquerade("candy"):
            assert nft("list ruleset") == RULESET
        assert forwards() == "1"
        assert nft("list ruleset") == ""

    on_a_machine(test)


CRASH = """
import os, signal
from candy.host.masquerade import Masquerade
with Masquerade("candy"):
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.netns
def test_what_a_crash_left_is_replaced_and_taken_away() -> None:
    def test() -> None:
        environment = {**os.environ, "PYTHONPATH": str(Path(candy.__file__).parent.parent)}
        crashed = subprocess.run([sys.executable, "-c", CRASH], check=False, env=environment)
        assert crashed.returncode == -signal.SIGKILL
        nft('add rule ip candy-masquerade postrouting iifname "old" masquerade')
        assert forwards() == "1"
        with Masquerade("candy"):
            assert nft("list ruleset") == NOTE + RULESET
        # As it was before the one that crashed.
        assert forwards() == "0"
        assert nft("list ruleset") == ""

    on_a_machine(test)


@pytest.mark.netns
@pytest.mark.parametrize("first", [0, 1])
def test_the_last_of_several_ends_forwarding(first: int) -> None:
    def test() -> None:
        names = ["candy", "candy-a.b_c"]
        for name in names:
            link("add", name, "type", "bridge")
        running = [Masquerade(name).__enter__() for name in names]
        running.pop(first).__exit__(None, None, None)
        assert forwards() == "1"
        assert set(nft("list tables").split()[2::3]) == {masquerade.NOTE, f"{names[1 - first]}-masquerade"}
        running.pop().__exit__(None, None, None)
        assert forwards() == "0"
        assert nft("list ruleset") == ""

    on_a_machine(test)


@pytest.mark.netns
def test_a_table_without_its_interface_keeps_nobody_forwarding() -> None:
    def test() -> None:
        nft("add table ip candy-gone-masquerade")
        with Masquerade("candy"):
            pass
        assert forwards() == "0"
        assert nft("list tables") == "table ip candy-gone-masquerade\n"

    on_a_machine(test)


def reconciled(gateway: Masquerade) -> set[str]:
    """Have all put right that is missing; what that was."""
    missing: set[Fact] = set()

    def judge(wanted: AbstractSet[Fact], found: AbstractSet[Fact]) -> tuple[Fact, ...]:
        missing.update(wanted - found)
        return tuple(missing)

    asyncio.run(gateway.reconcile(judge))
    return {str(fact) for fact in missing}


TABLE, NOTE_TABLE = "nftables table candy-masquerade", f"nftables table {masquerade.NOTE}"


@pytest.mark.netns
@pytest.mark.parametrize(
    ("change", "missing"),
    [
        (lambda: None, set()),
        (lambda: nft("flush ruleset"), {TABLE, NOTE_TABLE}),
        (lambda: nft("delete table ip candy-masquerade"), {TABLE}),
        (lambda: nft("flush table ip candy-masquerade"), {TABLE}),
        (lambda: nft("add rule ip candy-masquerade postrouting drop"), {TABLE}),
        (lambda: forward("0"), {"net.ipv4.ip_forward 1"}),
    ],
)
def test_what_others_change_is_put_right(change: Callable[[], None], missing: set[str]) -> None:
    """F6: flushed rules ended the NAT without a word."""

    def test() -> None:
        with Masquerade("candy") as gateway:
            change()
            assert reconciled(gateway) == missing
            assert forwards() == "1"
            assert nft("list table ip candy-masquerade") == RULESET
            assert nft(f"list table ip {masquerade.NOTE}") == NOTE
            assert reconciled(gateway) == set()
        assert forwards() == "0"
        assert nft("list ruleset") == ""

    on_a_machine(test)


@pytest.mark.netns
def test_forwarding_that_was_not_ours_is_not_looked_after() -> None:
    def test() -> None:
        forward("1")
        with Masquerade("candy") as gateway:
            forward("0")
            nft("flush ruleset")
            assert reconciled(gateway) == {TABLE}
            assert forwards() == "0"

    on_a_machine(test)


@pytest.mark.netns
def test_forwarding_that_another_one_of_ours_turned_on_is() -> None:
    def test() -> None:
        link("add", "candy", "type", "bridge")
        with Masquerade("candy"), Masquerade("candy-b") as gateway:
            forward("0")
            assert reconciled(gateway) == {"net.ipv4.ip_forward 1"}
            assert forwards() == "1"
        assert forwards() == "0"

    on_a_machine(test)


@pytest.mark.netns
def test_nft_is_removed_meanwhile() -> None:
    def test() -> None:
        gateway = Masquerade("candy")
        with gateway:
            kept, gateway._nft = gateway._nft, "/nowhere/nft"
            with pytest.raises(OperationalError, match="cannot run /nowhere/nft: No such file or directory"):
                reconciled(gateway)
            gateway._nft = kept

    on_a_machine(test)


@pytest.mark.netns
def test_somebody_else_flushed_all_rules(caplog: pytest.LogCaptureFixture) -> None:
    def test() -> None:
        with Masquerade("candy"):
            nft("flush ruleset")
        assert nft("list ruleset") == ""
        assert forwards() == "0"
        assert caplog.messages == []

    on_a_machine(test)


def test_without_nft(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name, path: None)
    with pytest.raises(OperationalError) as caught:
        Masquerade("candy")
    assert str(caught.value) == "--masquerade needs the program nft: apt install nftables"


@pytest.fixture
def refusing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program nft that refuses everything."""
    program = tmp_path / "nft"
    program.write_text(
        "#!/bin/sh\necho 'Error: Could not process rule: Operation not supported' >&2\necho more >&2\nexit 1\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return program


REFUSED = (
    "--masquerade: nft: Error: Could not process rule: Operation not supported: "
    "it takes CAP_NET_ADMIN, and a kernel with nf_tables"
)


def test_a_kernel_that_refuses(refusing: Path) -> None:
    gateway = Masquerade("candy")
    with pytest.raises(OperationalError) as caught:
        gateway.__enter__()
    assert str(caught.value) == REFUSED


@pytest.mark.netns
def test_a_kernel_that_refuses_at_the_end(refusing: Path, caplog: pytest.LogCaptureFixture) -> None:
    def test() -> None:
        kept = refusing.rename(refusing.with_name("kept"))
        gateway = Masquerade("candy")
        with gateway:
            gateway._nft = str(kept)
        assert caplog.messages == [REFUSED]

    on_a_machine(test)


@pytest.mark.netns
def test_a_setting_that_is_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with systemd's ProtectKernelTunables: even root can't write it."""

    def test() -> None:
        monkeypatch.setattr(masquerade, "is_forwarding", lambda: False)
        monkeypatch.setattr(masquerade, "IP_FORWARD", tmp_path)
        with pytest.raises(OperationalError) as caught, Masquerade("candy"):
            pass
        assert str(caught.value) == (
            "--masquerade: cannot set net.ipv4.ip_forward to 1: Is a directory: set it yourself, with sysctl"
        )
        assert nft("list ruleset") == ""

    on_a_machine(test)
