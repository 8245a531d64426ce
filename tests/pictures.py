"""Takes docs/page.png, the picture of a relay's page in README: a relay, three members and their traffic, in network
namespaces, and a headless Chromium beside the relay. Needs root and Chromium (scripts/bootstrap.sh tools browser).

    .venv/bin/python tests/pictures.py
"""

import asyncio
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from lab.browser import Chromium
from lab.machine import ROOT, Machines

TOKEN = "0123456789abcdef"
PASSWORD = "correct horse battery staple"
TRAFFIC_S = 20 * 60
"""Of an hour, which the page shows."""
SENDING = """while true; do
    iperf3 --client 192.168.202.2 --port {port} -b $((RANDOM % 30 + 2))M -t $((RANDOM % 60 + 10)) --forceflush || true
done"""
WIDTH, HEIGHT = 1000, 590


def main() -> None:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        machines = Machines(stack, folder)
        relay = machines["relay"]
        relay.write("/root/tokens", f"admin {TOKEN}\n")
        control = "chmod 600 /root/tokens; candy-server --control 127.0.0.1:26817 --control-token-file /root/tokens"
        relay.stay(f"export CANDY_PASSWORD='{PASSWORD}'\n{control}", ["… control on …"])
        for name, address in (("laptop", 2), ("desktop", 3), ("gateway", 4)):
            joining = f"candy-client -w ws://203.0.113.10:26816 -t 192.168.202.{address}/24"
            machines[name].stay(f"export CANDY_PASSWORD='{PASSWORD}'\n{joining}", ["… connected as …"])
        for name, port in (("desktop", 5201), ("gateway", 5202)):
            # An iperf3 serves one at a time.
            machines["laptop"].stay(f"iperf3 --server --port {port} --forceflush", ["Server listening on …"])
            machines[name].stay(SENDING.format(port=port), ["… connected to …"])
        with relay.host, Chromium(folder) as chromium:
            asyncio.run(take(chromium, ROOT / "docs" / "page.png"))


async def take(chromium: Chromium, file: Path) -> None:
    async with chromium.page() as page:
        await page.open("http://127.0.0.1:26817/")
        await page.type("#token", TOKEN)
        await page.click("#log-in button")
        await page.until("document.querySelectorAll('#members tbody tr').length === 3")
        # The page shows what was, and nothing makes that go faster.
        await asyncio.sleep(TRAFFIC_S)
        await page.picture(file, WIDTH, HEIGHT)


if __name__ == "__main__":
    main()
