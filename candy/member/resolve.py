"""The addresses of a host name, resolved in a thread of its own.

A look-up by getaddrinfo() can't be cancelled. It runs in a daemon thread, so a name server that does not answer delays
neither a deadline nor the program's end. This module does not know what is connected to.
"""

import asyncio
import socket
import threading
from collections.abc import Iterable
from contextlib import suppress
from ipaddress import ip_address
from typing import Any

from aiohappyeyeballs import AddrInfoType

from candy.errors import OperationalError
from candy.protocol.linking import Endpoint


def text_of(address: tuple[Any, ...]) -> str:
    """The host of a socket's address, with the interface if it is link-local: there it is a number of its own."""
    if len(address) == 2:
        return str(address[0])
    return socket.getnameinfo(address, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)[0]


def literal(addresses: Iterable[str], port: int) -> list[AddrInfoType]:
    """What resolve() gives, for addresses that are known."""
    families = {4: socket.AF_INET, 6: socket.AF_INET6}
    return [
        (families[ip_address(text).version], socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (text, port))
        for text in addresses
    ]


def endpoints(addresses: Iterable[AddrInfoType]) -> list[Endpoint]:
    """What resolve() gives, for UDP. One on the link itself, which names its interface, is left out."""
    found = ((ip_address(text_of(to).partition("%")[0]), int(to[1])) for *_, to in addresses)
    return [Endpoint(address, port) for address, port in found if not address.is_link_local]


async def resolve(host: str, port: int) -> list[AddrInfoType]:
    """The addresses of a host, in the resolver's order.

    Raises:
        OperationalError: there are none; the text says why.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[list[AddrInfoType]] = loop.create_future()

    def settle(result: list[AddrInfoType] | OSError | UnicodeError) -> None:
        if answer.cancelled():
            return
        if isinstance(result, list):
            answer.set_result(result)
        else:
            answer.set_exception(result)

    def look_up() -> None:
        result: list[AddrInfoType] | OSError | UnicodeError
        try:
            result = list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            result = error
        # The loop may be closed by now: then nothing waits for the answer.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, result)

    # Not in the loop's executor: its threads are joined at exit, which a silent name server would delay.
    threading.Thread(target=look_up, name=f"look up {host}", daemon=True).start()
    try:
        return await answer
    except socket.gaierror as error:
        if error.errno == socket.EAI_AGAIN:
            why = "the name server does not answer: is this machine online?"
        elif "%" in host:
            why = f"this machine has no interface {host.partition('%')[2]}"
        else:
            why = "name not found: check the spelling, and this machine's name server"
        raise OperationalError(f"{host}: {why}") from error
    except (OSError, UnicodeError) as error:
        raise OperationalError(f"{host}: not a host name ({error})") from error
