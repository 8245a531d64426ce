"""Answers that go on until somebody ends them, sent as they come about.

    Stream ─▶ piece(), piece(), … ─▶ the body of a response, as fast as its reader takes it

Rule: who reads slowly holds up his own stream and nothing else, so a Stream waits for nobody to take a piece.

This module does not know what is in them.
"""

from abc import ABC, abstractmethod


class Stream(ABC):
    """An answer of this media type. close() has to be called in any case."""

    media_type: str

    @abstractmethod
    async def piece(self) -> bytes | None:
        """What comes next, soon: b"" if there is nothing new. None: it is over."""

    @abstractmethod
    def close(self) -> None:
        """Nothing more is wanted."""


class Pcapng(Stream):
    """Packets, as Wireshark reads them (draft-ietf-opsawg-pcapng)."""

    media_type = "application/x-pcapng"
