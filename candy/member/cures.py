"""What a member's user can do when its relay refuses it, by the code that says why (candy.protocol.closing)."""

from collections.abc import Mapping

from candy.protocol.closing import CloseCode

CURES: Mapping[int, str] = {
    CloseCode.TRY_AGAIN_LATER: "wait, or raise the limit there",
    CloseCode.ADDRESS_HELD: "end the member that has it, or choose another address with --tun",
    CloseCode.NO_POOL: "choose one with --tun, or give the relay a pool with --dhcp",
    CloseCode.POOL_FULL: "wait until a member leaves, or give the relay a larger pool with --dhcp",
    CloseCode.OUTSIDE_POOL: "choose another with --tun, or start the relay with --allow-outside-pool",
    CloseCode.CLOCK_OFF: "set the one that is wrong, for example by NTP",
    CloseCode.PASSWORD_ENDED: "give this member one that holds",
    CloseCode.DEVICE_REVOKED: "ask the relay's operator for an invitation, remove this member's file in the folder "
    "device of its state folder, and join by it",
    CloseCode.INVITATION_ENDED: "ask the relay's operator for another",
    CloseCode.INVITED_ONLY: "ask the relay's operator for an invitation, and run candy-client join with it",
    CloseCode.APPROVAL_AWAITED: "show the operator this device's fingerprint",
}
"""For each code that refuses a log-in."""
FINAL = frozenset({CloseCode.DEVICE_REVOKED, CloseCode.INVITATION_ENDED, CloseCode.INVITED_ONLY})
"""Refusals after which only the user can do something."""
