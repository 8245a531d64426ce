"""A member whose state can't be written: it goes on in memory, and writes when it can again."""

import signal
from contextlib import ExitStack
from pathlib import Path

import pytest
from lab.laboratory import Laboratory

pytestmark = pytest.mark.netns

DISK = """
mkdir -p "$CANDY_STATE_DIR"
mount -t tmpfs -o size=64k tmpfs "$CANDY_STATE_DIR"
test "$0" = empty || head -c 64k /dev/zero >"$CANDY_STATE_DIR/fill"
exec "$@"
"""
"""A small disk that nobody but the client sees: `full`, or `empty`."""


@pytest.mark.parametrize("at_first", ["full", "empty"])
def test_a_full_disk(laboratory: Laboratory, stack: ExitStack, at_first: str) -> None:
    """F7: "exit 1, interface gone, each restart ends too"."""
    with laboratory.relay() as relay:
        client = laboratory.client(before=["unshare", "--mount", "sh", "-c", DISK, at_first])
        address = client.connected()
        interface = client.host.run("ip", "-o", "link", "show", "candy")
        disk = Path(f"/proc/{client.pid}/root{laboratory.state(client.host)}")
        fill = disk / "fill"
        if at_first == "empty":
            with pytest.raises(OSError, match="No space left"):
                fill.write_bytes(bytes(65536))
        relay.signal(signal.SIGKILL)
        relay.wait()
    for is_full in (True, False):
        lines = len(client.lines)
        with laboratory.relay() as relay:
            assert client.connected(lines) == address
            if is_full:
                # Once, for all that it kept and wrote so far.
                assert len([line for line in client.lines if "cannot write" in line]) == 1
                client.wait_for(
                    "WARNING cannot write .*: No space left on device: .*; going on in memory until that works$"
                )
                fill.unlink()
            else:
                client.wait_for("holds all of the state again$")
            relay.signal(signal.SIGKILL)
            relay.wait()
    assert client.host.run("ip", "-o", "link", "show", "candy") == interface
    assert (disk / "address" / "__noname__").read_text() == f"{address}/24"
    kept = {"address", "credential", "device", "handshake", "network", "vmac"}
    assert {path.name for path in disk.iterdir()} == kept
    client.signal(signal.SIGTERM)
    assert client.wait() == 0
    assert len([line for line in client.lines if "cannot write" in line]) == 1
