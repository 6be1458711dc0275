"""Nodes are killed, frozen and cut off under load: the short form of `scripts/bench/nemesis`, and what its
judge finds wrong.
"""

import asyncio
import importlib
import os
import re
import struct
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

pytestmark = pytest.mark.own_engine

BENCH = Path(__file__).parents[2] / "scripts" / "bench"


@pytest.mark.timeout(200)
@pytest.mark.parametrize(
    ("how", "done"),
    [
        (["--faults", "kill,stop,cut"], "'kill': 1, 'freeze': 1, 'cut': 1"),
        (["--faults", "kill", "--counting", "--nodes", "2"], "'kill': 1"),
    ],
)
def test_nodes_are_hurt_and_no_promise_is_broken(how, done, cassandra_nodes, redis_url, free_ports):
    """What was acknowledged arrives, once and in order; everybody sees who is there, and is there once."""
    environ = {
        **os.environ,
        "XMPPD_TEST_CASSANDRA": ",".join(f"{host}:{port}" for host, port in cassandra_nodes),
        "XMPPD_TEST_REDIS": redis_url,
    }
    command = [BENCH / "nemesis", *how, "--seconds", "0", "--rate", "50"]
    command += ["--spares", "1", "--port", str(free_ports(20)[0])]
    ran = subprocess.run(command, env=environ, check=False, capture_output=True, text=True, timeout=190)
    print(ran.stdout, ran.stderr)
    assert ran.returncode == 0, ran.stdout
    assert f"faults: {{{done}}}" in ran.stdout
    acknowledged = re.search(r"acknowledged (\d+)", ran.stdout)
    assert acknowledged is not None
    assert int(acknowledged[1]) > 100


@pytest.mark.parametrize("seconds", [0.0, -86_400.0])
def test_the_clock_of_a_process_is_wrong_by_what_a_file_says(seconds, tmp_path):
    (tmp_path / "clock").write_bytes(struct.pack("d", seconds))
    environ = {**os.environ, "PYTHONPATH": str(BENCH / "skew"), "NEMESIS_CLOCK": str(tmp_path / "clock")}
    command = [sys.executable, "-c", "import time; print(time.time(), time.time_ns())"]
    done = subprocess.run(command, env=environ, check=True, capture_output=True, text=True)
    now, now_ns = (float(text) for text in done.stdout.split())
    assert round((now - time.time()) / 86_400) == round((now_ns / 1e9 - time.time()) / 86_400)
    assert round((now - time.time()) / 86_400) == round(seconds / 86_400)


@pytest.fixture
def judged(monkeypatch):
    """What `judge` says of messages 1 to 4 from alice to bob, each acknowledged half a second after it was
    sent, when these arrived, as (at, connection, number); connection 0 is with node 0 and 1 with node 1.
    """
    monkeypatch.syspath_prepend(str(BENCH))
    promises = importlib.import_module("promises")

    def judged(*arrivals, faults=(), early=(), again=100.0, left=float("inf"), is_counted=False, **changes):
        sent = [
            promises.Sent(f"m{n}", "alice", "bob", n, float(n), n + 0.5, to="bob@x") for n in (1, 2, 3, 4)
        ]
        for message in sent:
            for name, value in changes.get(message.id, {}).items():
                setattr(message, name, value)
        lives = [promises.Life("bob", 0, 0.0, early={*early}, left=left), promises.Life("bob", 1, 5.0)]
        for at, connection, number in arrivals:
            lives[connection].arrived.append((at, f"m{number}"))
        faults = [promises.Fault(*fault) for fault in faults]
        return promises.judge(sent, lives, faults, again, is_counted=is_counted)

    yield judged
    sys.modules.pop("promises", None)


@pytest.fixture
def judged_iq(monkeypatch):
    """What `judge_iqs` says of an iq from alice on node 0 to bob on node 1, sent at 10, with these answers as
    (at, kind) or (at, kind, sender); their connections end at `ended`, hers first.
    """
    monkeypatch.syspath_prepend(str(BENCH))
    promises = importlib.import_module("promises")

    def judged_iq(*answers, faults=(), ended=(float("inf"), float("inf")), now=100.0, in_time=10.0, on=()):
        alice, bob = promises.Life("alice", 0, 0.0, ended[0]), promises.Life("bob", 1, 0.0, ended[1])
        iq = promises.Asked("q1", "bob@localhost/client", 10.0, alice)
        iq.answers = [(at, kind, *(sender or ["bob@localhost/client"])) for at, kind, *sender in answers]
        lives = alice, promises.Life("alice", 2, 10.0)
        iq.lives = [lives[number] for number in on or [0] * len(answers)]
        return promises.judge_iqs(
            [iq], [alice, bob], [promises.Fault(*fault) for fault in faults], now, in_time
        )

    yield judged_iq
    sys.modules.pop("promises", None)


def test_an_answer_may_come_once_more_to_the_next_session_of_who_asked(judged_iq):
    forever = float("inf")
    assert judged_iq((11, "result"), (12, "result"), ended=(11.5, forever)).wrong == []
    assert judged_iq((11, "result"), (12, "result"), ended=(12.5, forever)).wrong != []
    assert judged_iq((11, "result"), (12, "result"), ended=(10.5, forever)).wrong != []


def test_an_iq_is_answered_once_by_whom_it_was_for_and_in_time(judged_iq):
    assert judged_iq((11, "result")).wrong == judged_iq((11, "error")).wrong == []
    (wrong,) = judged_iq((11, "result"), (12, "result")).wrong
    assert wrong.startswith("answered twice: q1")
    (wrong,) = judged_iq((11, "result", "carol@localhost/client")).wrong
    assert wrong == "answered by another: q1, carol@localhost/client for bob@localhost/client"
    (wrong,) = judged_iq((25, "result")).wrong
    assert wrong.startswith("answered late: q1, after 15.0 s, sent at 10.00, alice on node 0")
    assert judged_iq((25, "result"), in_time=16.0).wrong == []
    (wrong,) = judged_iq().wrong
    assert wrong.startswith("not answered: q1, sent at 10.00")
    assert judged_iq(now=15.0).wrong == [], "there may be an answer yet"


@pytest.mark.parametrize(
    ("faults", "ended", "is_wrong"),
    [
        ([], 12.0, False),
        ([("freeze", (1,), 9.0, 25.0)], float("inf"), False),
        ([("freeze", (2,), 9.0, 25.0)], float("inf"), True),
        ([("freeze", (1,), 30.0, 45.0)], float("inf"), True),
    ],
)
def test_no_answer_is_missed_of_who_has_gone_or_was_hurt(judged_iq, faults, ended, is_wrong):
    assert bool(judged_iq(faults=faults, ended=(float("inf"), ended)).wrong) is is_wrong


def test_each_of_two_sessions_of_who_asked_may_be_answered_while_his_node_is_cut_off(judged_iq):
    fault, answers = ("cut", (0,), 9.0, 25.0), [(11, "result"), (12, "error")]
    assert judged_iq(*answers, faults=[fault], on=(1, 0)).wrong == []
    assert judged_iq(*answers, faults=[fault], on=(0, 0)).wrong != []
    assert judged_iq(*answers, faults=[("cut", (2,), 9.0, 25.0)], on=(1, 0)).wrong != []


def test_an_error_for_a_node_that_was_given_up_may_be_followed_by_the_answer(judged_iq):
    cut = ("cut", (0, 1), 9.0, 25.0)
    assert judged_iq((15, "error"), (18, "result"), faults=[cut]).wrong == []
    assert judged_iq((15, "error"), (18, "result")).wrong
    assert judged_iq((15, "result"), (18, "result"), faults=[cut]).wrong


def test_all_that_was_sent_arrived(judged):
    verdict = judged((1, 0, 1), (2, 0, 2), (6, 1, 3), (6, 1, 4))
    assert verdict.wrong == []
    assert verdict.counts == {"sent": 4, "acknowledged": 4}


def test_one_is_lost(judged):
    [lost] = judged((1, 0, 1), (2, 0, 2), (3, 0, 3)).wrong
    assert lost == (
        "lost: m4 to bob@x, sent at 4.00, acknowledged at 4.50; bob on node 0 from 0.00 to inf; "
        "bob on node 1 from 5.00 to inf"
    )


def test_what_was_not_acknowledged_may_be_lost(judged):
    assert judged((1, 0, 1), (2, 0, 2), (3, 0, 3), m4={"acked": None}).wrong == []


@pytest.mark.parametrize(
    ("error", "fault", "is_wrong"),
    [
        ("resource-constraint", ("cassandra", (1,), 3.0, 15.0), False),
        ("resource-constraint", ("cassandra", (1,), 8.0, 15.0), True),
        ("resource-constraint", ("kill", (1,), 3.0, 15.0), True),
        ("service-unavailable", ("cassandra", (1,), 3.0, 15.0), True),
    ],
)
def test_a_message_is_refused_for_now_where_a_node_has_no_store(judged, error, fault, is_wrong):
    verdict = judged((1, 0, 1), (2, 0, 2), (3, 0, 3), m4={"error": error, "refused": 4.5}, faults=[fault])
    assert bool(verdict.wrong) is is_wrong
    assert verdict.counts[f"refused: {error}"] == 1


@pytest.mark.parametrize(("node", "at", "is_wrong"), [(0, 4.6, False), (0, 9.0, True), (1, 4.6, True)])
def test_what_was_in_the_memory_of_the_node_of_its_receiver_is_counted_apart(judged, node, at, is_wrong):
    verdict = judged((1, 0, 1), (2, 0, 2), (3, 0, 3), faults=[("kill", (node,), at, at + 10)])
    assert bool(verdict.wrong) is is_wrong
    assert verdict.counts["acknowledged, gone with its receiver's node"] == (not is_wrong)


@pytest.mark.parametrize(
    ("fault", "left", "is_wrong"),
    [
        (("alone", (0,), 1.0, 15.0), 1.0, False),
        (("alone", (0,), 1.0, 15.0), 4.0, True),
        (("alone", (1,), 1.0, 15.0), 1.0, True),
        (("cut", (0,), 1.0, 15.0), 1.0, True),
    ],
)
def test_what_a_connection_was_given_that_its_client_had_left_is_counted_apart(judged, fault, left, is_wrong):
    verdict = judged((1, 0, 1), (2, 0, 2), (4, 0, 4), faults=[fault], left=left)
    assert bool(verdict.wrong) is is_wrong
    assert verdict.counts["acknowledged, gone with a connection that was cut"] == (not is_wrong)


@pytest.mark.parametrize(
    ("fault", "node", "is_wrong"),
    [
        (("alone", (0,), 1.5, 5.0), 1, False),
        (("alone", (0,), 1.5, 5.0), 0, True),
        (("alone", (1,), 1.5, 5.0), 1, True),
        (("alone", (0,), 3.5, 5.0), 1, True),
        (("cut", (0, 1), 1.5, 5.0), 1, True),
    ],
)
def test_who_leaves_a_node_that_nobody_reaches_may_overtake_himself(judged, fault, node, is_wrong):
    nodes = {f"m{number}": {"node": 0} for number in (1, 2, 4)}
    verdict = judged((1, 0, 1), (2, 0, 3), (3, 0, 2), (4, 0, 4), faults=[fault], m3={"node": node}, **nodes)
    assert bool(verdict.wrong) is is_wrong


def test_what_came_only_when_everybody_logged_in_again_is_counted_apart(judged):
    verdict = judged((1, 0, 1), (2, 0, 2), (3, 0, 3), (30, 1, 4), again=20.0)
    assert verdict.wrong == []
    assert verdict.counts["only at the next login"] == 1


@pytest.mark.parametrize(
    ("fault", "is_wrong"), [("cut", False), ("freeze", False), ("kill", True), ("redis", True)]
)
def test_it_may_come_twice_on_one_connection_that_outlived_the_loss_of_its_node(judged, fault, is_wrong):
    arrivals = (1, 0, 1), (2, 0, 2), (3, 0, 3), (4, 0, 4), (6, 0, 4)
    assert bool(judged(*arrivals, faults=[(fault, (0,), 3.5, 15.0)]).wrong) is is_wrong
    assert judged(*arrivals, faults=[("cut", (1, 2), 3.5, 15.0)]).wrong, "not of its node"


def test_one_came_twice(judged):
    (wrong,) = judged((1, 0, 1), (2, 0, 2), (3, 0, 3), (3, 0, 3), (4, 0, 4)).wrong
    assert wrong.startswith("twice on one connection: m3")
    (wrong,) = judged((1, 0, 1), (2, 0, 2), (3, 0, 3), (4, 0, 4), (6, 1, 4)).wrong
    assert wrong.startswith("twice: m4")


@pytest.mark.parametrize(
    ("fault", "is_wrong"),
    [(("kill", (0,), 4.2, 15.0), False), (("term", (0,), 4.2, 15.0), True), (("kill", (0,), 1.0, 3.5), True)],
)
def test_a_copy_that_came_again_because_a_node_was_lost_is_counted_apart(judged, fault, is_wrong):
    verdict = judged((1, 0, 1), (2, 0, 2), (3, 0, 3), (4, 0, 4), (6, 1, 4), faults=[fault])
    assert bool(verdict.wrong) is is_wrong
    assert verdict.counts["twice by a kill"] == (not is_wrong)


def test_a_kill_excuses_nothing_where_clients_confirm_and_count_what_comes(judged):
    kill = ("kill", (0,), 4.2, 15.0)
    twice = (1, 0, 1), (2, 0, 2), (3, 0, 3), (4, 0, 4), (6, 1, 4)
    (wrong,) = judged(*twice, faults=[kill], is_counted=True).wrong
    assert wrong.startswith("twice: m4") and judged(*twice, faults=[kill]).wrong == []
    (wrong,) = judged(*twice[:3], faults=[kill], is_counted=True).wrong
    assert wrong.startswith("lost: m4") and judged(*twice[:3], faults=[kill]).wrong == []
    assert judged(*twice, faults=[("cut", *kill[1:])], is_counted=True).wrong == []


def test_order_holds_over_all_connections_of_who_counts_what_comes(judged):
    arrivals = (1, 0, 1), (3, 0, 3), (6, 1, 2), (7, 1, 4)
    assert judged(*arrivals).wrong == []
    (wrong,) = judged(*arrivals, is_counted=True).wrong
    assert wrong.startswith("reordered: ")


def test_the_order_of_one_sender_is_kept(judged):
    (wrong,) = judged((1, 0, 1), (2, 0, 3), (3, 0, 2), (4, 0, 4)).wrong
    assert wrong.startswith(
        "reordered: bob on node 0 since 0.00 was given m2 after m3: m2 to bob@x at 2.00, "
    )
    assert judged((1, 0, 1), (2, 0, 3), (3, 0, 2), (4, 0, 4), m2={"acked": None}).wrong == []


def test_second_copies_of_several_behind_their_first_ones_overtake_nothing(judged):
    arrivals = (1, 0, 1), (2, 0, 2), (3, 0, 3), (4, 0, 4), (5, 0, 2), (6, 0, 3)
    verdict = judged(*arrivals, faults=[("cut", (0,), 1.5, 15.0)])
    assert verdict.wrong == []
    assert verdict.counts["twice by a cut"] == 2


def test_what_is_stored_by_a_node_with_a_wrong_clock_may_be_overtaken(judged):
    arrivals = (1, 0, 1), (2, 0, 3), (3, 0, 2), (4, 0, 4)
    verdict = judged(*arrivals, faults=[("clock", (1,), 1.5, 15.0)])
    assert verdict.wrong == []
    assert verdict.counts["overtaken by a wrong clock"] == 1
    assert judged(*arrivals, faults=[("clock", (1,), 3.5, 15.0)]).wrong
    assert judged(*arrivals, faults=[("kill", (1,), 1.5, 15.0)]).wrong


def test_who_is_bound_and_not_available_is_given_what_is_for_his_full_jid_before_what_was_stored(judged):
    verdict = judged((1, 0, 3), (2, 0, 1), (3, 0, 2), (4, 0, 4), early=["m3"])
    assert verdict.wrong == []
    assert verdict.counts["to who was not available yet"] == 1


def test_what_nobody_sent_and_what_is_for_others(judged):
    assert judged((1, 0, 1), (2, 0, 2), (3, 0, 3), (4, 0, 4), (5, 0, 9)).wrong == [
        "bob was given m9, which nobody sent"
    ]
    wrong = judged((1, 0, 1), (2, 0, 2), (3, 0, 3), (4, 0, 4), m4={"receiver": "carol"}).wrong
    assert wrong == ["bob was given m4, which is not for him"]


@pytest.fixture
def line(monkeypatch):
    """A connection of bob, who has seen himself available at priority 0; `line.tell` is what he is told."""
    monkeypatch.syspath_prepend(str(BENCH))
    witness = importlib.import_module("witness")
    crew = SimpleNamespace(sent={}, lives=[])
    line = witness.Line(witness.Client(crew, "bob", [], ""), SimpleNamespace(index=0))
    line.connection_made(SimpleNamespace(write=lambda data: None))
    line.is_live = True
    line.tell = lambda text: line.data_received(text.encode())
    line.show(0)
    line.tell(SEEN.format(line.status))
    yield line
    for name in ("witness", "nodes", "oracle", "promises", "relay", "stream", "victim"):
        sys.modules.pop(name, None)


SEEN = "<presence from='bob@localhost/client'><status>{}</status></presence>"


def test_a_client_is_out_of_the_way_of_messages_as_long_as_its_server_may_believe_so(line):
    """What it said last may not have come: after a bad net several presences come at once."""
    line.tell("<message id='m1'/>")
    line.show(-5)
    low = line.status
    line.show(5)
    line.tell(f"<message id='m2'/>{SEEN.format(low)}<message id='m3'/>")
    line.tell(f"{SEEN.format(line.status)}<message id='m4'/>")
    assert line.life.early == {"m2", "m3"}


MANAGED = "<message id='{0}'><stanza-id xmlns='urn:xmpp:sid:0' by='bob@localhost' id='{1}'/></message>"


@pytest.fixture
def counted(monkeypatch):
    """A connection of bob with stream management, and what it has written."""
    monkeypatch.syspath_prepend(str(BENCH))
    modules = [importlib.import_module(name) for name in ("witness", "counted", "promises")]
    witness, counted, promises = modules
    chance = SimpleNamespace(random=lambda: 1.0)
    crew = SimpleNamespace(sent={}, lives=[], done=Counter(), wrong=[], chance=chance)
    client = witness.Client(crew, "bob", [], "", counted.Counted)
    written = []

    def line():
        line = client.lines(client, SimpleNamespace(index=0))
        line.connection_made(SimpleNamespace(write=lambda data: written.append(data.decode()), abort=int))
        line.tell = lambda text: line.data_received(text.encode())
        return line

    yield line, client, written, lambda id: promises.Sent(id, "bob", "alice", 1, 0.0)
    for name in ("counted", "ledger", "witness", "nodes", "oracle", "promises", "relay", "stream", "victim"):
        sys.modules.pop(name, None)


@pytest.mark.asyncio
async def test_a_client_counts_what_comes_and_nothing_twice(counted):
    make, client, written, _ = counted
    line = make()
    client.ledger.begin("id")
    line._goes_on(client.ledger)
    line.tell("<presence/><iq/>" + MANAGED.format("m1", "a") + MANAGED.format("m2", "b"))
    line.tell(MANAGED.format("m2", "b") + MANAGED.format("m3", "b") + "<r xmlns='urn:xmpp:sm:3'/>")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert [id for _, id in line.life.arrived] == ["m1", "m2"]
    assert written[-1] == "<a xmlns='urn:xmpp:sm:3' h='6'/>"
    line.tell("<message id='m4'/>")
    assert "without an id" in client.crew.wrong[0]


@pytest.mark.asyncio
async def test_what_was_not_acknowledged_is_sent_again_as_it_was_by_the_next_connection(counted):
    make, client, written, sent = counted
    first, messages = make(), [sent("m1"), sent("m2"), sent("m3")]
    client.ledger.begin("id")
    client.former = first
    first._goes_on(client.ledger)
    first.show(3)
    for message in messages:
        first.say(message, "alice@localhost")
    first.tell("<a xmlns='urn:xmpp:sm:3' h='2'/>" + SEEN.format(first.status))
    assert [message.acked is not None for message in messages] == [True, False, False]
    first.leave_it(politely=False)
    second = make()
    resuming = asyncio.ensure_future(second._resume(client.ledger))
    await asyncio.sleep(0)
    assert written[-1] == "<resume xmlns='urn:xmpp:sm:3' previd='id' h='1'/>"
    second.tell("<resumed xmlns='urn:xmpp:sm:3' h='3' previd='id'/>")
    assert await resuming and "id='m3'" in written[-1] and "id='m2'" not in written[-2]
    assert [message.acked is not None for message in messages] == [True, True, False]
    assert second.priority == 3 and second.session is first.session and second.view is first.view


@pytest.mark.asyncio
async def test_directed_presence_that_is_sent_again_goes_to_who_has_the_name_by_then(counted):
    """It was for the session before that one, which is nothing that a server could know."""
    make, client, _, _ = counted
    first, other = (
        make(),
        SimpleNamespace(client=SimpleNamespace(name="alice", full="alice@localhost/client")),
    )
    client.ledger.begin("id")
    client.former = first
    first._goes_on(client.ledger)
    first.direct(other)
    first.directed["alice"] = other, 1.0
    first.leave_it(politely=False)
    second = make()
    resuming = asyncio.ensure_future(second._resume(client.ledger))
    await asyncio.sleep(0)
    second.tell("<resumed xmlns='urn:xmpp:sm:3' h='0' previd='id'/>")
    assert await resuming and second.directed["alice"][0] is other and second.directed["alice"][1] > 1.0
