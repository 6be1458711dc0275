"""What clients of a cluster sent, were told and were given, and which promises that breaks."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

TAKEN_SECONDS = 1.0
"""A message that a node gave to the connection of its receiver this long before it was killed may have been
in its memory still, where the receiver does not confirm what comes (XEP-0198).
"""


@dataclass(slots=True, eq=False)
class Sent:
    """One message. `acked`: when the ping behind it was answered, on the connection that it was sent by;
    `error`: the condition with which it came back.
    """

    id: str
    sender: str
    receiver: str
    number: int
    at: float
    acked: float | None = None
    error: str = ""


@dataclass(slots=True, eq=False)
class Life:
    """One connection of a client with one node, from `began` to `ended`."""

    who: str
    node: int
    began: float
    ended: float = float("inf")
    arrived: list[tuple[float, str]] = field(default_factory=list)
    """When which message came."""
    early: set[str] = field(default_factory=set)
    """What came while the client was not available yet: such is for its full JID, and does not wait for what
    was stored, which comes when it is.
    """


@dataclass(frozen=True, slots=True)
class Fault:
    """What was done to which nodes, and when it was over."""

    kind: str
    nodes: tuple[int, ...]
    began: float
    ended: float


REPEATING = ("kill", "freeze", "cut", "redis")
"""Faults by which a message may come a second time: who sent it cannot know that the first copy was read."""


@dataclass(slots=True)
class Verdict:
    """Broken promises, and how often what happened."""

    wrong: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


def judge(
    sent: Iterable[Sent], lives: Sequence[Life], faults: Sequence[Fault], again: float = float("inf")
) -> Verdict:
    """Hold what arrived against what was acknowledged. Arrivals are told by id. What came only because
    everybody logged in once more at `again` is counted apart.
    """
    verdict = Verdict()
    by_id = {message.id: message for message in sent}
    copies: dict[str, list[tuple[float, Life]]] = defaultdict(list)
    for life in lives:
        for at, id in life.arrived:
            if id not in by_id:
                verdict.wrong.append(f"{life.who} was given {id}, which nobody sent")
            elif by_id[id].receiver != life.who:
                verdict.wrong.append(f"{life.who} was given {id}, which is not for him")
            copies[id].append((at, life))
    for found in copies.values():
        found.sort(key=lambda arrival: arrival[0])
    for message in by_id.values():
        _judge_one(message, copies.get(message.id, []), lives, faults, verdict, again)
    for life in lives:
        _judge_order(life, by_id, copies, verdict)
    return verdict


def _judge_one(
    message: Sent,
    copies: Sequence[tuple[float, Life]],
    lives: Sequence[Life],
    faults: Sequence[Fault],
    verdict: Verdict,
    again: float,
) -> None:
    verdict.counts["sent"] += 1
    if message.error:
        verdict.counts[f"refused: {message.error}"] += 1
    elif message.acked is None:
        verdict.counts["unknown, arrived" if copies else "unknown, not arrived"] += 1
    else:
        verdict.counts["acknowledged"] += 1
        if copies and copies[0][0] >= again:
            verdict.counts["only at the next login"] += 1
        if not copies:
            _judge_lost(message, message.acked, lives, faults, verdict)
    if len(copies) > 1:
        _judge_twice(message, copies, faults, verdict)


def _judge_lost(
    message: Sent, acked: float, lives: Sequence[Life], faults: Sequence[Fault], verdict: Verdict
) -> None:
    killed = [fault for fault in faults if fault.kind == "kill"]
    for life in lives:
        if life.who == message.receiver and life.began <= acked:
            for fault in killed:
                if life.node in fault.nodes and acked - TAKEN_SECONDS <= fault.began <= acked + TAKEN_SECONDS:
                    verdict.counts["acknowledged, gone with its receiver's node"] += 1
                    return
    verdict.wrong.append(f"lost: {message.id}, sent at {message.at:.2f}, acknowledged at {acked:.2f}")


def _judge_twice(
    message: Sent, copies: Sequence[tuple[float, Life]], faults: Sequence[Fault], verdict: Verdict
) -> None:
    first, last = copies[0], copies[-1]
    places = ", ".join(f"at {at:.2f} by node {life.node}" for at, life in copies)
    if len({id(life) for _, life in copies}) < len(copies):
        verdict.wrong.append(f"twice on one connection: {message.id}, {places}")
    elif reasons := [
        fault
        for fault in faults
        if fault.kind in REPEATING and fault.began <= last[0] and fault.ended >= message.at
    ]:
        verdict.counts[f"twice by a {reasons[0].kind}"] += 1
    else:
        verdict.wrong.append(f"twice: {message.id}, sent at {message.at:.2f}, {places}, {first[1].who}")


def _judge_order(
    life: Life, by_id: dict[str, Sent], copies: dict[str, list[tuple[float, Life]]], verdict: Verdict
) -> None:
    """Of what was acknowledged to one sender; what came elsewhere before is left out."""
    last: dict[str, Sent] = {}
    came = {id: at for at, id in reversed(life.arrived)}
    for _, id in life.arrived:
        message = by_id.get(id)
        if message is None or message.acked is None or message.error or copies[id][0][1] is not life:
            continue
        if id in life.early:
            verdict.counts["to who was not available yet"] += 1
            continue
        before = last.get(message.sender)
        if before is not None and before.number > message.number:
            times = ", ".join(
                f"{m.id} sent at {m.at:.2f}, came at {came[m.id]:.2f}" for m in (message, before)
            )
            who = f"{life.who} on node {life.node} since {life.began:.2f}"
            verdict.wrong.append(f"reordered: {who} was given {id} after {before.id}: {times}")
        else:
            last[message.sender] = message
