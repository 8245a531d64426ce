"""What is found at each step of an attempt, and of the clocks."""

from candy.member.findings import NOT_REACHED, UNTOLD_CLOCK, Finding, State, Walk, clock, is_well
from candy.member.steps import Step

SAID = {step: (State.OK, f"{step} is well") for step in Step} | {Step.PROXY: (State.SKIPPED, "none")}


def walked(*steps: Step) -> Walk:
    """Each begins a second after the one before."""
    walk = Walk()
    for second, step in enumerate(steps):
        walk.begin(step, float(second))
    return walk


def test_a_way_that_is_well() -> None:
    found = walked(Step.NAME, Step.TCP, Step.UPGRADE).findings(SAID, 3.5)
    assert found == [
        Finding("name", State.OK, 1.0, "name is well"),
        Finding("TCP", State.OK, 1.0, "TCP is well"),
        Finding("proxy", State.SKIPPED, None, "none"),
        Finding("TLS", State.OK, None, "TLS is well"),
        Finding("upgrade", State.OK, 1.5, "upgrade is well"),
    ]
    assert is_well(found)


def test_what_is_behind_a_fault_is_left_out() -> None:
    found = walked(Step.NAME, Step.TCP).findings(SAID, 4.0, "connection refused")
    assert [each.state for each in found] == [
        State.OK,
        State.FAILED,
        State.SKIPPED,
        State.SKIPPED,
        State.SKIPPED,
    ]
    assert (found[1].text, found[1].seconds) == ("connection refused", 3.0)
    assert [each.text for each in found[2:]] == ["none", NOT_REACHED, NOT_REACHED]
    assert not is_well(found)


def test_an_attempt_that_fails_before_its_first_step() -> None:
    found = Walk().findings(SAID, 0.0, "no descriptor")
    assert (found[0].state, found[0].seconds, found[0].text) == (State.FAILED, None, "no descriptor")


def test_clocks() -> None:
    assert clock(None, 1000, 0.5) == Finding("clock", State.SKIPPED, None, UNTOLD_CLOCK)
    assert clock(1000, 1000, 0.5) == Finding(
        "clock", State.OK, 0.5, "the relay's clock and this machine's say the same"
    )
    assert clock(1300, 1000, 0.5).state is State.OK
    ahead, behind = clock(1301, 1000, 0.5), clock(699, 1000, 0.5)
    cure = "set the one that is wrong, for example by NTP"
    assert ahead == Finding("clock", State.FAILED, 0.5, f"the relay's clock is 301 s ahead of this machine's: {cure}")
    assert behind == Finding("clock", State.FAILED, 0.5, f"the relay's clock is 301 s behind this machine's: {cure}")


def test_a_warning_is_well() -> None:
    assert is_well([Finding("state", State.WARNING, 0.0, "")])
