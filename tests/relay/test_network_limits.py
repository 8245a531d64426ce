"""Limits and quotas of a network's members: who is held when, and by how much."""

from kit.talk import ONE, WALL, Talk, ip

from candy.relay.leases import Leases, Traffic
from candy.relay.limits import Limits, OwnLimits
from candy.relay.session import Limit

MONTH_S = 31 * 86400


def log_in(talk: Talk, last: int = 5, skew: int = 0) -> tuple[int, list[object]]:
    """A connection, and what its log-in led to."""
    connection = talk.open()
    talk.vmac(connection, ONE, skew=skew)
    return connection, [*talk.auth(connection, ip(last), skew=skew)]


def joined(talk: Talk) -> int:
    return log_in(talk)[0]


def carried(talk: Talk, connection: int, size: int) -> list[object]:
    """What follows from its having carried so many bytes in all, half of them each way."""
    traffic = Traffic(1, size // 2, 1, size - size // 2)
    return [*talk.keep(talk.network.carried(connection, traffic, talk.wall))]


def test_a_member_gets_its_networks_limits_and_new_ones_at_once() -> None:
    talk = Talk(limits=Limits(down=10_000_000))
    connection, actions = log_in(talk)
    assert Limit(connection, 10_000_000, 0) in actions
    assert talk.keep(talk.network.set_limits(Limits(up=9000), WALL)) == [Limit(connection, 0, 9000)]
    assert talk.keep(talk.network.set_limits(Limits(up=9000), WALL)) == []
    assert talk.network.members == 1


def test_without_limits_the_engine_is_told_nothing() -> None:
    talk = Talk()
    connection, actions = log_in(talk)
    assert not any(isinstance(action, Limit) for action in actions)
    assert carried(talk, connection, 1 << 40) == []
    assert not talk.network.has_quotas


def test_a_device_has_limits_of_its_own_and_keeps_them_when_it_comes_back() -> None:
    talk = Talk(limits=Limits(down=10_000_000, up=8000))
    connection = joined(talk)
    own = OwnLimits(down=20_000_000, up=0)
    assert talk.keep(talk.network.limit(ip(5), own, WALL)) == [Limit(connection, 20_000_000, 0)]
    talk.keep(talk.network.closed(connection, talk.now, talk.wall, "eof"))
    [row] = [row for row in talk.network.register.changes().leases.values() if row is not None]
    assert row.own == own
    again, actions = log_in(talk, skew=1)
    assert Limit(again, 20_000_000, 0) in actions
    restored = Leases()
    restored.restore([row])
    assert [(lease.ip, lease.own) for lease in restored] == [(row.ip, own)]


def test_a_quota_holds_whom_has_used_it_up_until_the_month_is_over() -> None:
    talk = Talk(limits=Limits(up=5_000_000, quota=1000, quota_rate=64_000))
    assert talk.network.has_quotas
    connection = joined(talk)
    assert carried(talk, connection, 999) == []
    talk.log.clear()
    assert carried(talk, connection, 1000) == [Limit(connection, 64_000, 64_000)]
    assert [text for _, text in talk.log if "has used up its quota of 1000 bytes" in text]
    assert carried(talk, connection, 5000) == []
    assert talk.network.register.used(ip(5), talk.wall) == 5000
    talk.wall += MONTH_S
    assert carried(talk, connection, 5001) == [Limit(connection, 0, 5_000_000)]
    assert talk.network.register.used(ip(5), talk.wall) == 1


def test_a_quota_is_no_matter_of_connections_nor_of_a_restart() -> None:
    talk = Talk(limits=Limits(quota=1000))
    connection = joined(talk)
    carried(talk, connection, 1500)
    talk.keep(talk.network.closed(connection, talk.now, talk.wall, "eof"))
    kept = talk.network.register.everything()
    other = Talk(limits=Limits(quota=1000, quota_rate=8000))
    other.network.register.restore(kept, other.wall)
    again, actions = log_in(other, skew=1)
    assert Limit(again, 8000, 8000) in actions


def test_an_operator_forgives() -> None:
    talk = Talk(limits=Limits(quota=1000))
    connection = joined(talk)
    carried(talk, connection, 1500)
    own = talk.network.register.own_limits(ip(5))
    assert talk.keep(talk.network.limit(ip(5), own, WALL, is_forgiven=True)) == [Limit(connection, 0, 0)]
