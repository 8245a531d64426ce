"""Stands in for an engine with a device that seals: notes what it is told of sealing."""

from typing import Any

TUN = 7
"""The device."""


class Recorded:
    """Stands in for an engine: what it is told."""

    def __init__(self) -> None:
        self.done: list[tuple[str, dict[str, Any]]] = []
        self.carried: list[tuple[int, int, float, float, float, float]] = []
        self.is_full = False
        self.sent: list[tuple[int, bytes]] = []
        """To members, by a relay."""

    def set_sealing(self, tun: int, sealing: int, own: int, *, checks_source: bool) -> None:
        self._do("set_sealing", tun, sealing=sealing, own=own, checks_source=checks_source)

    def install(self, tun: int, **given: Any) -> None:
        self._do("install", tun, **given)

    def remove_session(self, tun: int, local: int) -> bool:
        self._do("remove_session", tun, local=local)
        return True

    def set_peer(self, tun: int, address: int, way: int, **given: Any) -> None:
        if self.is_full:
            raise MemoryError
        self._do("set_peer", tun, address=address, way=way, **given)

    def forget_peer(self, tun: int, address: int) -> bool:
        self._do("forget_peer", tun, address=address)
        return True

    def send(self, connection: int, payload: bytes) -> bool:
        self.sent.append((connection, payload))
        return True

    def send_sealed(self, tun: int, local: int, body: bytes) -> bool:
        self._do("send_sealed", tun, local=local, body=body)
        return True

    def seal_groups(self, tun: int, epoch: bytes, key: bytes, label_key: bytes) -> None:
        self._do("seal_groups", tun, epoch=epoch, key=key, label_key=label_key)

    def open_group(self, tun: int, source: int, epoch: bytes, key: bytes, message: bytes) -> None:
        self._do("open_group", tun, source=source, epoch=epoch, key=key, message=message)

    def close_group(self, tun: int, source: int, epoch: bytes) -> bool:
        self._do("close_group", tun, source=source, epoch=epoch)
        return True

    def seen(self, tun: int) -> list[tuple[int, int, float, float, float, float]]:
        assert tun == TUN
        return self.carried

    def all(self, name: str) -> list[dict[str, Any]]:
        return [given for each, given in self.done if each == name]

    def _do(self, name: str, tun: int, **given: Any) -> None:
        assert tun == TUN
        self.done.append((name, given))
