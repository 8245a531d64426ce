"""What other relays have written, as it is taken in: grants, devices, invitations, reservations.

    a bucket that is followed ─▶ on_grant(), on_device() ─▶ opened ─▶ Shared, and the network, which decides
    another relay says it itself ─▶ learn_device()

A record that can't be read is passed over, with one line in the log: one relay with another secret is no reason for all
to end.
"""

import logging
from collections.abc import Callable, Mapping
from ipaddress import IPv4Address
from typing import Final, TypeVar

from candy.relay.cluster.agreement import Agreement
from candy.relay.cluster.ledger import Entry
from candy.relay.cluster.records import Credential, FormatError, Grant, Record, Redeemable, Reserved
from candy.relay.cluster.shared import Decide, Shared
from candy.relay.enrolment import Device, Standing
from candy.relay.reservations import Reservation

UNREADABLE_MOST: Final = 100
"""Records that can't be read of which the log tells."""

log: Final = logging.getLogger("candy.relay")

_Of = TypeVar("_Of", bound=Record)


class Learning:
    """See above.

    Args:
        by_word: what the relay serves, by networks' words; the caller's, who changes it.
        decide: has a network decide, and carries that out.
    """

    def __init__(
        self, agreement: Agreement, by_word: Mapping[str, Shared], decide: Callable[[Shared, Decide], None]
    ) -> None:
        self._agreement = agreement
        self._by_word = by_word
        self._decide = decide
        self._unreadable: set[str] = set()

    def on_grant(self, entry: Entry) -> None:
        """Of the bucket of grants."""
        name, _, address = entry.key.partition(".")
        shared = self._by_word.get(name)
        if shared is not None and (grant := self.opened(Grant, entry)) is not None:
            # Nobody else seals what can be opened, so the key is one of grant_key().
            shared.learn(int(IPv4Address(address)), grant, entry.revision)

    def on_device(self, entry: Entry) -> None:
        """Of the bucket of devices, invitations and reservations."""
        name, _, rest = entry.key.partition(".")
        shared = self._by_word.get(name)
        if shared is None:
            return
        try:
            if rest.startswith("invitation."):
                invitation = self._agreement.opened(Redeemable, entry).invitation()
                self._unchanged(shared, invitation.selector, lambda: shared.network.enrolment.learn(invitation))
            elif rest.startswith("reserved."):
                self._learn_reserved(shared, rest, self._agreement.opened(Reserved, entry))
            elif rest.startswith("device."):
                self.learn_device(shared, self._agreement.opened(Credential, entry).device())
        except FormatError as error:
            self.pass_over(error)

    def _learn_reserved(self, shared: Shared, key: str, record: Reserved) -> None:
        ip = int(key.rpartition(".")[2], 16)
        try:
            reservation = Reservation.of(IPv4Address(ip), record.device) if record.device else None
        except ValueError as error:
            raise FormatError(f"a reservation of {IPv4Address(ip)} {error}") from None
        # What was commanded here meanwhile is about to be written.
        if ip not in shared.reserved:
            self._decide(shared, lambda network, now, wall: network.reserved(ip, reservation, now))

    def learn_device(self, shared: Shared, device: Device) -> None:
        """Another relay has written this of a device, or is about to."""
        own = shared.network.enrolment.get(device.key)
        shared.wrote(device)
        if own is not None and own.standing is Standing.REVOKED and device.standing is not Standing.REVOKED:
            # It was revoked here while NATS was away, perhaps before this start: the others are yet to learn it.
            shared.changed[device.key] = None
            return

        def learn() -> None:
            self._decide(shared, lambda network, now, wall: network.learned(device, now, wall))

        self._unchanged(shared, device.key, learn)

    @staticmethod
    def _unchanged(shared: Shared, key: bytes, learn: Callable[[], None]) -> None:
        """What is learned is not written again."""
        was_changed = key in shared.changed
        learn()
        if not was_changed:
            shared.changed.pop(key, None)

    def opened(self, kind: type[_Of], entry: Entry) -> _Of | None:
        """An entry's record; None: it can't be read."""
        try:
            return self._agreement.opened(kind, entry)
        except FormatError as error:
            self.pass_over(error)
            return None

    def pass_over(self, error: FormatError) -> None:
        """Tell of it once."""
        if str(error) not in self._unreadable and len(self._unreadable) < UNREADABLE_MOST:
            self._unreadable.add(str(error))
            log.warning("cluster: passed over: %s", error)
