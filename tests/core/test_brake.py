"""Who guesses passwords waits, and nobody else."""

import itertools
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xmppd.core import brake as module
from xmppd.core.brake import Brake, BrakeRules
from xmppd.core.reports import LINES, Reports

ALICE, BOB = "alice@localhost", "bob@localhost"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def fail(brake: Brake, peer: str, account: str = ALICE) -> float:
    brake.failed(peer, account)
    return brake.wait(peer, account)


def test_answers_come_ever_more_slowly(clock: Clock) -> None:
    brake = Brake(BrakeRules(), clock)
    waits = []
    for _ in range(12):
        waits.append(fail(brake, "192.0.2.1"))
        clock.now += waits[-1]
    assert waits == [0.0, 0.0, 0.0, 0.0, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0, 10.0, 10.0]


def test_a_login_to_no_account_in_particular_clears_nothing(clock: Clock) -> None:
    brake = Brake(BrakeRules(per_network=2), clock)
    for number in range(4):
        fail(brake, "192.0.2.1", f"user{number}@localhost")
    brake.succeeded("192.0.2.1", "")
    assert fail(brake, "192.0.2.1", "user5@localhost") > 0


def test_more_connections_are_not_more_answers(clock: Clock) -> None:
    brake = Brake(BrakeRules(longest=10.0), clock)
    for _ in range(8):
        clock.now += fail(brake, "192.0.2.1")
    waits = [brake.wait("192.0.2.1", ALICE) for _ in range(5)]
    assert waits[0] == 10.0
    assert all(wait > 10.0 for wait in waits[1:]), "too late to be answered at all"
    clock.now += 30
    assert brake.wait("192.0.2.1", ALICE) == 0.0, "what was not answered takes nobody's turn"


def test_the_owner_elsewhere_does_not_notice(clock: Clock) -> None:
    brake = Brake(BrakeRules(), clock)
    for number in range(2000):
        fail(brake, f"192.0.2.{number % 250}")
    assert brake.wait("198.51.100.1", ALICE) == 0.0
    assert brake.wait("2001:db8:0:1::1", ALICE) == 0.0


def test_another_account_from_the_same_address_has_some_tries_more(clock: Clock) -> None:
    brake = Brake(BrakeRules(per_account=3, per_network=20), clock)
    for _ in range(10):
        fail(brake, "192.0.2.1")
    assert brake.wait("192.0.2.1", BOB) == 0.0
    for number in range(12):
        fail(brake, "192.0.2.1", f"user{number}@localhost")
    clock.now += 1
    assert brake.wait("192.0.2.1", BOB) > 0.0


def test_a_network_of_ipv6_is_one_address(clock: Clock) -> None:
    brake = Brake(BrakeRules(), clock)
    waits = [fail(brake, f"2001:db8:0:1::{number:x}") for number in range(6)]
    assert waits[-1] > 0.0
    assert brake.wait("2001:db8:0:2::1", ALICE) == 0.0


def test_a_success_ends_it_for_the_account_and_not_for_the_address(clock: Clock) -> None:
    brake = Brake(BrakeRules(per_account=3, per_network=8), clock)
    for _ in range(12):
        fail(brake, "192.0.2.1", BOB)
    brake.succeeded("192.0.2.1", ALICE)  # an account of his own
    assert brake.wait("192.0.2.1", ALICE) > 0.0
    clock.now += 100
    brake.succeeded("192.0.2.1", BOB)
    assert [fail(brake, "192.0.2.1", BOB) for _ in range(1)] == [0.0]


def test_it_is_forgotten_in_time(clock: Clock) -> None:
    brake = Brake(BrakeRules(forget=900), clock)
    for _ in range(10):
        fail(brake, "192.0.2.1")
    clock.now += 901
    assert brake.wait("192.0.2.1", ALICE) == 0.0
    assert len(brake) == 0


def test_memory_is_bounded(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ENTRIES", 100)
    brake = Brake(BrakeRules(), clock)
    for a, b in itertools.product(range(20), range(20)):
        brake.failed(f"192.0.{a}.{b}", ALICE)
    assert len(brake) == 100


def test_who_is_exempt_or_has_no_address(clock: Clock) -> None:
    exempt = (ip_network("127.0.0.0/8"), ip_network("2001:db8::/32"))
    brake = Brake(BrakeRules(exempt=exempt), clock)
    for peer in ("127.0.0.1", "127.9.9.9", "::ffff:127.0.0.1", "2001:db8::1", "local", ""):
        assert [fail(brake, peer) for _ in range(50)] == [0.0] * 50
    assert len(brake) == 0


def test_no_brake(clock: Clock) -> None:
    brake = Brake(BrakeRules(per_account=0, per_network=0), clock)
    assert [fail(brake, "192.0.2.1") for _ in range(50)] == [0.0] * 50


# what is told of it


def test_lines_are_bounded_and_events_are_counted(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    reports = Reports(clock)
    for number in range(100):
        reports.tell("login-failed", f"2001:db8:0:1::{number:x}", reason="not-authorized")
        reports.tell("login-failed", "192.0.2.1", reason="not-authorized")
    assert reports.counts == {"login-failed": 200}
    assert len(caplog.records) == 2 * LINES
    assert hasattr(caplog.records[-1], "last_line")
    clock.now += 61
    reports.tell("login-failed", "192.0.2.1", reason="not-authorized")
    assert len(caplog.records) == 2 * LINES + 1


def test_lines_of_all_together_are_bounded(
    clock: Clock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xmppd.core.reports.TOGETHER", 50)
    caplog.set_level("INFO")
    reports = Reports(clock)
    for number in range(250):
        reports.tell("login-failed", f"192.0.2.{number}", reason="not-authorized")
    assert len(caplog.records) == 50


def test_what_was_no_guess_is_forgiven_to_the_network_alone() -> None:
    clock = [0.0]
    brake = Brake(BrakeRules(per_account=1, per_network=2), lambda: clock[0])
    for account in ("a", "b", "c"):
        brake.failed("203.0.113.9", account)
    assert brake.wait("203.0.113.9", "x") == 0.0
    assert brake.wait("203.0.113.9", "x") == 1.0
    brake.forgive("203.0.113.77", 1)
    assert brake.wait("203.0.113.9", "x") > 0.0, "another network"
    brake.forgive("203.0.113.9", 1)
    assert brake.wait("203.0.113.9", "x") == 0.0
    brake.forgive("203.0.113.9", 5)
    assert len(brake) == 3
    brake.forgive("203.0.113.9", 1)
    for account in ("a", "b"):
        brake.failed("203.0.113.9", account)
    assert brake.wait("203.0.113.9", "x") == 0.0


# several nodes

STEPS = st.tuples(
    st.sampled_from(["fail", "fail", "log in", "forgive", "wait", "wait long"]),
    st.integers(0, 2),
    st.sampled_from(["192.0.2.1", "198.51.100.7"]),
    st.sampled_from([ALICE, BOB]),
)


def tell_all(brakes: list[Brake]) -> None:
    for brake in brakes:
        news = brake.take_news()
        for other in brakes:
            if other is not brake:
                other.heard(news)


def told(rules: BrakeRules, clock: Clock) -> Brake:
    """The brake of one of several nodes."""
    brake = Brake(rules, clock)
    brake.on_news = lambda: None
    return brake


@given(st.lists(STEPS, max_size=60))
def test_brakes_that_tell_each_other_are_as_one(steps: list[tuple[str, int, str, str]]) -> None:
    clock, rules = Clock(), BrakeRules(per_account=2, per_network=5, forget=60.0)
    one, brakes = Brake(rules, clock), [told(rules, clock) for _ in range(3)]
    at = 0
    for kind, node, peer, account in steps:
        if node != at or kind.startswith("wait"):
            tell_all(brakes)
        at, results = node, []
        for brake in (one, brakes[node]):
            if kind == "fail":
                results.append(fail(brake, peer, account))
            elif kind == "log in":
                results.append(brake.wait(peer, account))
                brake.succeeded(peer, account)
            elif kind == "forgive":
                brake.forgive(peer, 1)
        assert results[:1] == results[1:]
        clock.now += {"wait": 3.0, "wait long": 61.0}.get(kind, 0.0)
    tell_all(brakes)
    assert [len(brake) for brake in brakes] == [len(one)] * 3 or any(
        kind == "wait long" for kind, *_ in steps
    )


def test_what_nobody_asks_for_is_not_gathered(clock: Clock) -> None:
    brake = Brake(BrakeRules(), clock)
    fail(brake, "192.0.2.1")
    assert brake.take_news() == []


def test_what_is_gathered_is_bounded_and_asked_for_once(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "NEWS", 4)
    brake, other, asked = told(BrakeRules(), clock), told(BrakeRules(), clock), []
    brake.on_news = lambda: asked.append(1)
    for number in range(10):
        fail(brake, f"192.0.2.{number}")
    news = brake.take_news()
    assert (len(news), len(asked), len(brake)) == (4, 1, 20)
    other.heard(news)
    assert (len(other), other.take_news()) == (4, []), "what was heard is not told again"
    fail(brake, "192.0.2.1")
    assert (len(brake.take_news()), len(asked)) == (2, 2)


def test_a_login_is_told_whatever_else_there_is(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NEWS", 2)
    brake, other = told(BrakeRules(), clock), told(BrakeRules(), clock)
    fail(brake, "192.0.2.1")
    tell_all([brake, other])
    fail(brake, "198.51.100.7")
    brake.succeeded("192.0.2.1", ALICE)
    tell_all([brake, other])
    assert len(other) == len(brake) == 3


def test_answers_that_nodes_give_at_once_are_so_many_answers(clock: Clock) -> None:
    one, other = brakes = [told(BrakeRules(per_account=1), clock) for _ in range(2)]
    for _ in range(5):
        one.failed("192.0.2.1", ALICE)
    tell_all(brakes)
    assert (one.wait("192.0.2.1", ALICE), other.wait("192.0.2.1", ALICE)) == (0.0, 0.0)
    tell_all(brakes)
    assert one.wait("192.0.2.1", ALICE) == 16.0


def test_what_was_counted_before_it_is_told_is_summed_up(clock: Clock) -> None:
    one, other = brakes = [told(BrakeRules(), clock) for _ in range(2)]
    waits = [fail(one, "192.0.2.1") for _ in range(6)]
    tell_all(brakes)
    assert waits == [0.0, 0.0, 0.0, 0.0, 1.0, 3.0]
    assert other.wait("192.0.2.1", ALICE) == 7.0


def test_who_fails_again_after_a_login_begins_anew(clock: Clock) -> None:
    one, other = brakes = [told(BrakeRules(), clock) for _ in range(2)]
    for _ in range(4):
        fail(one, "192.0.2.1")
    tell_all(brakes)
    one.succeeded("192.0.2.1", ALICE)
    fail(one, "192.0.2.1")
    tell_all(brakes)
    assert [fail(other, "192.0.2.1") for _ in range(4)] == [0.0, 0.0, 0.0, 1.0]
