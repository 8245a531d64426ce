"""The parts of a member that its settings decide, and that one which runs may have others of after a reload."""

import logging
import random
import secrets
import socket
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from candy import __version__
from candy._fastpath import Engine
from candy.carrier.tls import Trust
from candy.host.processor import has_aes
from candy.host.underlay import Underlay
from candy.member.acceptance import Acceptance
from candy.member.conversation import Identity
from candy.member.dial import Dialer
from candy.member.keyring import Keyring
from candy.member.keys import MemberKeys
from candy.member.linking import Linking, LinkSettings
from candy.member.relays import Relays
from candy.member.sealing import Sealing, boottime
from candy.member.settings import MemberSettings
from candy.member.state import MemberState
from candy.protocol.hello import Hello
from candy.protocol.link import Invitation
from candy.protocol.login import Asks
from candy.protocol.secret import Secret
from candy.sealing.sealer import Say
from candy.sealing.seals import Seal

_log = logging.getLogger(__name__)


class Parts(NamedTuple):
    """What a reload may replace: what a member connects as, by what, and how it seals for others."""

    identity: Identity
    keyring: Keyring
    relays: Relays
    seal: Seal
    secret: Secret | None


def hello(host: str) -> bytes:
    """The payload of the first PING, as the original sends it."""
    return Hello("linux", __version__, host).encode()


def dialer(
    settings: MemberSettings, underlay: Underlay | None = None, url: str | None = None, instance: str | None = None
) -> Dialer:
    """Of a URL; None: the first one. Raises ConfigError or OperationalError, as Dialer does."""
    if settings.insecure and url is None and settings.url.startswith("wss:"):
        _log.warning("the relay's certificate is not verified (--insecure)")
    url = url or settings.url
    return Dialer(
        url,
        trust=Trust(settings.ca_file, settings.insecure, settings.pins_of(url), settings.ml_kem),
        extension=settings.extension,
        underlay=underlay,
        instance=instance,
    )


def relays(settings: MemberSettings, underlay: Underlay | None = None) -> Relays:
    """All that the settings name. Raises ConfigError or OperationalError, as Dialer does."""
    first = dialer(settings, underlay)

    def make(url: str) -> Dialer:
        return dialer(settings, underlay, url, first.instance)

    return Relays([first, *map(make, settings.urls[1:])], make, random.random)


def keyring(settings: MemberSettings, invitation: Invitation | None = None) -> Keyring:
    """Raises OperationalError: a file with keys is damaged."""
    return Keyring(
        MemberKeys(settings.state_dir, settings.name),
        password=settings.password,
        network=settings.network_key,
        invitation=invitation,
        randbytes=secrets.token_bytes,
    )


def linking(settings: MemberSettings, state: MemberState, engine: Engine, tun: int) -> Linking:
    """Raises OperationalError: a port that the user names can't be had."""
    links = LinkSettings(
        settings.direct,
        settings.port,
        settings.stun,
        settings.endpoints,
        settings.localhost,
        settings.discovery,
        settings.route,
    )
    made = Linking(links, engine, tun, secrets.token_bytes, boottime)
    made.legacy.count.kept, made.legacy.count.keep = state.sealed, state.keep_sealed
    return made


def sealing(
    settings: MemberSettings, state: MemberState, engine: Engine, tun: int, linking: Linking | None = None
) -> Callable[[Say], Sealing]:
    """What seals for others, once it is told who carries out what it says."""
    can = Asks.HAS_AES if has_aes() else Asks(0)
    made = partial(Sealing, can, settings.seals, settings.secret, state, engine, tun)
    return made if linking is None else partial(made, prefix=linking.prefix, watch=linking.follow)


def identity(settings: MemberSettings, state: MemberState, acceptance: Acceptance) -> Identity:
    """What it says of itself."""
    return Identity(
        password=settings.password or b"",
        vmac=state.vmac(secrets.token_bytes),
        address=settings.tun,
        hello=hello(socket.gethostname()),
        randbytes=secrets.token_bytes,
        acceptance=acceptance,
    )
