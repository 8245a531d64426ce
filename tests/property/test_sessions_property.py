"""Two members whose messages are lost, repeated, reordered, who start anew, whose clocks jump: they always meet again.

Invariant: nothing goes in the clear, no key is installed twice (in kit.sealed_world), no packet arrives twice, a
member has three sessions with a peer at most; and when the way is good again, packets pass both ways.
"""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from kit.sealed_world import A, B, Plain, World


class Pair(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.nodes = [self.world.add(A), self.world.add(B)]
        self.count = 0

    @rule(which=st.integers(0, 1))
    def sends(self, which: int) -> None:
        self.count += 1
        node, other = self.nodes[which], self.nodes[1 - which]
        node.engine.send(other.address, b"packet %d" % self.count)
        self.world.settle()

    @precondition(lambda self: self.world.wire)
    @rule(data=st.data())
    def arrives(self, data: st.DataObject) -> None:
        at = data.draw(st.integers(0, len(self.world.wire) - 1))
        self.world.deliver(self.world.wire.pop(at))

    @precondition(lambda self: self.world.wire)
    @rule()
    def all_arrive(self) -> None:
        self.world.run()

    @precondition(lambda self: self.world.wire)
    @rule(data=st.data())
    def is_lost(self, data: st.DataObject) -> None:
        self.world.wire.pop(data.draw(st.integers(0, len(self.world.wire) - 1)))

    @precondition(lambda self: self.world.trace)
    @rule(data=st.data())
    def is_repeated(self, data: st.DataObject) -> None:
        at = data.draw(st.integers(0, min(20, len(self.world.trace)) - 1))
        self.world.deliver(self.world.trace[-1 - at])

    @rule(seconds=st.sampled_from([0.3, 1.0, 5.0, 10.0, 50.0, 120.0, 175.0, 181.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.pass_time(seconds, run=False)

    @rule(seconds=st.integers(-(10**8), 10**8))
    def the_clock_jumps(self, seconds: int) -> None:
        self.world.wall = max(10**18, self.world.wall + seconds * 10**9)

    @rule(seconds=st.integers(1, 400))
    def it_is_suspended(self, seconds: int) -> None:
        self.world.now += seconds

    @rule(which=st.integers(0, 1))
    def starts_anew(self, which: int) -> None:
        node = self.nodes[which]
        node.start()
        node.join()
        self.world.settle()

    @rule(which=st.integers(0, 1))
    def loses_its_relay(self, which: int) -> None:
        self.nodes[which].lose()
        self.world.settle()
        self.nodes[which].join()
        self.world.settle()

    @invariant()
    def nothing_is_in_the_clear(self) -> None:
        assert not any(isinstance(datagram, Plain) for datagram in self.world.wire)

    @invariant()
    def no_packet_arrives_twice(self) -> None:
        for node in self.nodes:
            assert len(set(node.got)) == len(node.got)

    @invariant()
    def a_peer_has_three_sessions_at_most(self) -> None:
        assert all(len(node.engine.sessions) <= 3 for node in self.nodes)

    @invariant()
    def nobody_is_warned(self) -> None:
        assert not self.nodes[0].logs + self.nodes[1].logs

    def teardown(self) -> None:
        """The way is good again."""
        self.world.run()
        self.world.pass_time(30)
        for one, other in (self.nodes, self.nodes[::-1]):
            for _ in range(4):
                self.count += 1
                last = b"packet %d" % self.count
                one.engine.send(other.address, last)
                self.world.settle()
                self.world.run()
                self.world.pass_time(8)
            assert last in other.got


TestPair = Pair.TestCase
TestPair.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
