"""What becomes of settings that were read again: what a relay that runs applies, and what needs a restart.

    running, wanted ─▶ changes() ─▶ Changes: networks to add, to remove and to change, the rest by name

Rules:
 1. A change is applied, or it is named as one that needs a restart. A network that is new or gone is one change.
 2. What candy.options says a reload applies is applied. Of those that it does not name, a pool is applied if the one
    before is a part of it.
 3. Where a change depends on one that needs a restart, it needs it too: TLS switched on or off, a network in which this
    machine has an interface taken away, rules and reservations that were judged with a pool which is not there yet.
 4. Afterwards the relay runs with `Changes.running`: what was wanted, but for what needs a restart. So the next reload
    names that again.

This module carries nothing out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from ipaddress import IPv4Network
from typing import Any, TypeVar

from candy.checked import Frozen
from candy.options import OPTIONS
from candy.relay.networksettings import NetworkSettings
from candy.relay.settings import RelaySettings

_Model = TypeVar("_Model", bound=Frozen)

_NAMES: Mapping[str, str] = {name: option.key for option in reversed(OPTIONS["server"]) for name in option.decides}
"""Of the option that decides a setting: the first one where several do."""
_RELOADED = frozenset(name for option in OPTIONS["server"] if option.reloads for name in option.decides)


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What came of a reload, for who asked for it."""

    applied: tuple[str, ...] = ()
    """The names of what has changed."""
    needs_restart: tuple[str, ...] = ()
    """The names of what is different and stays as it was."""
    failed: tuple[str, ...] = ()
    """What went wrong with what was to be applied, a line each."""


@dataclass(slots=True)
class Changes:
    """From the settings a relay runs with to those that were read."""

    running: RelaySettings
    """What it runs with afterwards."""
    reloaded: Reloaded = field(default_factory=Reloaded)
    own: frozenset[str] = frozenset()
    """The relay's own settings that differ."""
    added: list[NetworkSettings] = field(default_factory=list)
    removed: list[NetworkSettings] = field(default_factory=list)
    changed: list[tuple[NetworkSettings, frozenset[str]]] = field(default_factory=list)
    """As they are afterwards, with the names of the settings that differ."""


def changes(running: RelaySettings, wanted: RelaySettings) -> Changes:
    """What to do, and what its outcome is."""
    applied: list[str] = []
    left: list[str] = []
    found = Changes(running)
    differing = _differing(running, wanted) - {"networks"}
    kept = {name for name in differing if name not in _RELOADED}
    if running.has_tls != wanted.has_tls:
        kept |= differing & {"tls_certificate", "tls_key", "tls_self_signed", "ml_kem"}
    found.own = frozenset(differing - kept)
    applied += _named(found.own)
    left += _named(kept)
    before = {network.path: network for network in running.networks}
    after = {network.path: network for network in wanted.networks}
    networks = []
    for path in sorted(before.keys() | after.keys(), key=_main_first):
        old, new = before.get(path), after.get(path)
        if new is None:
            assert old is not None
            if old.tun is not None:
                left.append(f"network {path}")
                networks.append(old)
            else:
                applied.append(f"network {path}")
                found.removed.append(old)
            continue
        if old is None:
            applied.append(f"network {path}")
            found.added.append(new)
            networks.append(new)
            continue
        changed, unchanged = _of_network(old, new)
        prefix = "" if path == "/" else f"network {path}: "
        applied += [prefix + name for name in _named(changed)]
        left += [prefix + name for name in _named(unchanged)]
        networks.append(_with(old, new, changed))
        if changed:
            found.changed.append((networks[-1], changed))
    found.running = replace(_with(running, wanted, found.own), networks=tuple(networks))
    found.reloaded = Reloaded(tuple(dict.fromkeys(applied)), tuple(dict.fromkeys(left)))
    return found


def _of_network(old: NetworkSettings, new: NetworkSettings) -> tuple[frozenset[str], frozenset[str]]:
    """The settings that differ: those that are applied, and those that are not."""
    differing = _differing(old, new)
    if old.password_is_generated and new.password_is_generated:
        # It is read from the state folder again, so it is no change.
        differing -= {"password"}
    if set(old.rules) == set(new.rules):
        differing -= {"rules"}
    if set(old.every_password) == set(new.every_password) and old.password_is_generated == new.password_is_generated:
        differing -= {"password", "passwords"}
    applied = differing & _RELOADED
    if "pool" in differing and _encloses(new.pool, old.pool):
        applied |= {"pool"}
    if new.password_is_generated and not old.password_is_generated:
        # One is made at a start.
        applied -= {"password", "password_is_generated", "passwords"}
    if (differing - applied) & {"pool", "allow_outside_pool", "tun"}:
        # They are sound with what is not there yet.
        applied -= {"reservations", "rules"}
    return frozenset(applied), frozenset(differing - applied)


def _encloses(new: IPv4Network | None, old: IPv4Network | None) -> bool:
    return new is not None and old is not None and old.subnet_of(new)


def _differing(one: Frozen, other: Frozen) -> set[str]:
    return {each.name for each in fields(one) if getattr(one, each.name) != getattr(other, each.name)}


def _with(old: _Model, new: _Model, names: frozenset[str]) -> _Model:
    """The old settings, but for these."""
    update: dict[str, Any] = {name: getattr(new, name) for name in names}
    return replace(old, **update)


def _named(fields: Sequence[str] | frozenset[str] | set[str]) -> list[str]:
    """The options' names of settings, in alphabetical order of the latter."""
    return [_NAMES.get(name, name) for name in sorted(fields)]


def _main_first(path: str) -> tuple[bool, str]:
    return path != "/", path
