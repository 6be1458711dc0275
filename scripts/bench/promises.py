"""What clients of a cluster sent, were told and were given, and which promises that breaks."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

TAKEN_SECONDS = 1.0
"""A message that a node gave to the connection of its receiver this long before it was killed may have been
in its memory still, where the receiver does not confirm what comes (XEP-0198).
"""


NEAR_SECONDS = 10.0
"""What was so long before or behind is told of a lost message."""


@dataclass(slots=True, eq=False)
class Sent:
    """One message, `to` a bare or full JID. `acked`: when the ping behind it was answered, on the connection
    that it was sent by, to `node`; `error`: the condition with which it came back, at `refused`. `again`:
    when it was sent again, and to which node.
    """

    id: str
    sender: str
    receiver: str
    number: int
    at: float
    acked: float | None = None
    error: str = ""
    refused: float = 0.0
    to: str = ""
    node: int = -1
    again: list[tuple[float, int]] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Life:
    """One connection of a client with one node, from `began` to `ended`; the client `left` it before."""

    who: str
    node: int
    began: float
    ended: float = float("inf")
    left: float = float("inf")
    arrived: list[tuple[float, str]] = field(default_factory=list)
    """When which message came."""
    early: set[str] = field(default_factory=set)
    """What came while the client was not available yet: such is for its full JID, and does not wait for what
    was stored, which comes when it is.
    """
    kept: dict[str, list[str]] = field(default_factory=dict)
    """By which ids of their archive (XEP-0359) messages came: to tell of what came twice."""


@dataclass(slots=True, eq=False)
class Asked:
    """One iq to a session, on the connection `life`. `answers`: when which came, and from whom; `lives`: on
    which connections.
    """

    id: str
    to: str
    at: float
    life: Life
    answers: list[tuple[float, str, str]] = field(default_factory=list)
    lives: list[Life] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Fault:
    """What was done to which nodes, and when it was over."""

    kind: str
    nodes: tuple[int, ...]
    began: float
    ended: float


REPEATING = ("kill", "freeze", "cut", "redis", "cassandra")
"""Faults by which a message may come a second time: who sent it cannot know that the first copy was read, or
that it was deleted.
"""

SURVIVED = ("freeze", "cut", "cassandra")
"""Those of them that connections with their nodes outlive: then it may come twice on one connection."""

ANY = -1
"""In the place of a node: connections with several."""

FOR_NOW = "resource-constraint"
"""How a message is refused for who is away, while there is no store (type wait)."""

STORELESS = ("cassandra", "freeze")
"""Faults by which a node does not hear its store in time: also when it was the node that stood still."""

ANSWER_SECONDS = 10.0
"""In which an iq to a session that is there is answered, by it or by an error."""

BUS_SECONDS = 16.0
"""The same where nodes are joined by Redis: who has sent something to a killed node has what he asks and
answers wait behind that, for 6 s; so one kill may hold up who asks, and the next one who is asked.
"""


@dataclass(slots=True)
class Verdict:
    """Broken promises, and how often what happened."""

    wrong: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


def judge(
    sent: Iterable[Sent],
    lives: Sequence[Life],
    faults: Sequence[Fault],
    again: float = float("inf"),
    *,
    is_counted: bool = False,
) -> Verdict:
    """Hold what arrived against what was acknowledged. Arrivals are told by id. What came only because
    everybody logged in once more at `again` is counted apart. Where clients confirm what comes and know what
    they had (`is_counted`), a kill excuses nothing, and order holds over all connections of a client.
    """
    if is_counted:
        faults = [replace(it, kind="killed") if it.kind == "kill" else it for it in faults]
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
    for life in together(lives) if is_counted else lives:
        _judge_order(life, by_id, copies, faults, verdict)
    return verdict


def together(lives: Sequence[Life]) -> list[Life]:
    """All connections of each client as one."""
    whole: dict[str, Life] = {}
    for life in lives:
        one = whole.setdefault(life.who, Life(life.who, ANY, life.began))
        one.arrived += life.arrived
        one.early |= life.early
    for one in whole.values():
        one.arrived.sort(key=lambda arrival: arrival[0])
    return [*whole.values()]


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
        _judge_refused(message, faults, verdict)
    elif message.acked is None:
        verdict.counts["unknown, arrived" if copies else "unknown, not arrived"] += 1
    else:
        verdict.counts["acknowledged"] += 1
        if copies and copies[0][0] >= again:
            verdict.counts["only at the next login"] += 1
        if not copies:
            _judge_lost(message, message.acked, lives, faults, verdict)
    if len(copies) > 1:
        _judge_twice(message, copies, lives, faults, verdict)


def _judge_refused(message: Sent, faults: Sequence[Fault], verdict: Verdict) -> None:
    verdict.counts[f"refused: {message.error}"] += 1
    is_excused = message.error == FOR_NOW and any(
        fault.kind in STORELESS and fault.began <= message.refused and message.at <= fault.ended
        for fault in faults
    )
    if not is_excused:
        verdict.wrong.append(f"refused: {message.id}, sent at {message.at:.2f}, {message.error}")


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
            if life.left <= acked and life.ended >= message.at and _was_alone(life, faults):
                verdict.counts["acknowledged, gone with a connection that was cut"] += 1
                return
    times = f"sent at {message.at:.2f}, acknowledged at {acked:.2f}"
    what = f"lost: {message.id} to {message.to}, {times}"
    verdict.wrong.append(what + _around(message, acked, lives, faults))


def _around(message: Sent, until: float, lives: Sequence[Life], faults: Sequence[Fault]) -> str:
    """When it was sent again, and the connections and faults of the time from then until `until`."""
    again = [f"; sent again at {at:.2f} to node {node}" for at, node in message.again]
    where = [
        f"; {_life(life)}"
        for life in lives
        if life.who in (message.sender, message.receiver)
        and life.began <= until + NEAR_SECONDS
        and life.ended >= message.at - NEAR_SECONDS
    ]
    return "".join(again + where) + _near(faults, message.at, until)


def _was_alone(life: Life, faults: Sequence[Fault]) -> bool:
    """Whether its node was cut off from its clients during a connection, so that it did not see it end."""
    return any(
        fault.kind == "alone" and life.node in fault.nodes and life.began <= fault.began < life.ended
        for fault in faults
    )


def _near(faults: Sequence[Fault], since: float, until: float) -> str:
    """What was done at about that time."""
    return "".join(
        f"; {fault.kind} of {fault.nodes} at {fault.began:.2f}"
        for fault in faults
        if since - NEAR_SECONDS <= fault.began <= until + NEAR_SECONDS
    )


def _judge_twice(
    message: Sent,
    copies: Sequence[tuple[float, Life]],
    lives: Sequence[Life],
    faults: Sequence[Fault],
    verdict: Verdict,
) -> None:
    first, last = copies[0], copies[-1]
    places = ", ".join(f"at {at:.2f} by node {life.node}" for at, life in copies)
    is_on_one = len({id(life) for _, life in copies}) < len(copies)
    if reasons := [
        fault
        for fault in faults
        if fault.kind in REPEATING
        and fault.began <= last[0]
        and fault.ended >= message.at
        and (not is_on_one or (fault.kind in SURVIVED and last[1].node in fault.nodes))
    ]:
        verdict.counts[f"twice by a {reasons[0].kind}"] += 1
    else:
        what = "twice on one connection" if is_on_one else "twice"
        kept = sorted({id for _, life in copies for id in life.kept.get(message.id, ())})
        named = f"{message.id}, sent at {message.at:.2f}, {places}, {first[1].who}, archived as {kept}"
        verdict.wrong.append(f"{what}: {named}{_around(message, last[0], lives, faults)}")


def _judge_order(
    life: Life,
    by_id: dict[str, Sent],
    copies: dict[str, list[tuple[float, Life]]],
    faults: Sequence[Fault],
    verdict: Verdict,
) -> None:
    """Of what was acknowledged to one sender, when it came first: a second copy, here or elsewhere, is left
    out, for it comes behind what came meanwhile. What was stored has the order of the clocks of nodes, so
    what is sent while one is wrong is counted apart.
    """
    skewed = [fault for fault in faults if fault.kind == "clock"]
    last: dict[str, Sent] = {}
    came = {id: at for at, id in reversed(life.arrived)}
    for id in dict.fromkeys(id for _, id in life.arrived):
        message = by_id.get(id)
        if message is None or message.acked is None or message.error:
            continue
        if life.node != ANY and copies[id][0][1] is not life:
            continue
        if id in life.early:
            verdict.counts["to who was not available yet"] += 1
            continue
        before = last.get(message.sender)
        is_overtaken = before is not None and before.number > message.number
        if is_overtaken and any(it.began <= came[id] and message.at <= it.ended for it in skewed):
            verdict.counts["overtaken by a wrong clock"] += 1
        elif before is not None and is_overtaken and _has_crossed(message, before, faults):
            verdict.counts["overtaken by who went to another node while his was cut off"] += 1
        elif before is not None and is_overtaken:
            times = ", ".join(
                f"{m.id} to {m.to} at {m.at:.2f}, acknowledged at {m.acked:.2f}, came at {came[m.id]:.2f}"
                for m in (message, before)
            )
            who = f"{life.who} on node {life.node} since {life.began:.2f}"
            verdict.wrong.append(f"reordered: {who} was given {id} after {before.id}: {times}")
        else:
            last[message.sender] = message


def _has_crossed(message: Sent, later: Sent, faults: Sequence[Fault]) -> bool:
    """Whether its sender had left his node for another by the later one, while the first was cut off."""
    return message.node != later.node and any(
        fault.kind == "alone" and message.node in fault.nodes and fault.began <= later.at <= fault.ended
        for fault in faults
    )


def judge_iqs(
    asked: Iterable[Asked],
    lives: Sequence[Life],
    faults: Sequence[Fault],
    now: float,
    in_time: float = ANSWER_SECONDS,
) -> Verdict:
    """Each is answered once, by whom it was for, in time. No answer is missed where who asked, or was asked,
    has gone, or where a node of theirs was hurt meanwhile; and of those that are younger at `now` than an
    answer may be late.
    """
    verdict = Verdict()
    by_name: dict[str, list[Life]] = defaultdict(list)
    for life in lives:
        by_name[life.who].append(life)
    for iq in asked:
        verdict.counts["iqs"] += 1
        if len(iq.answers) > 1:
            _judge_answers(iq, by_name, faults, verdict)
        for at, kind, sender in iq.answers[:1]:
            verdict.counts[f"iqs answered by {kind}"] += 1
            if sender != iq.to:
                verdict.wrong.append(f"answered by another: {iq.id}, {sender} for {iq.to}")
            if at - iq.at > in_time and not _is_hurt(iq, at, by_name, faults):
                verdict.wrong.append(
                    f"answered late: {iq.id}, after {at - iq.at:.1f} s, sent at {iq.at:.2f}, "
                    f"{_ways(iq, by_name)}{_near(faults, iq.at, at)}"
                )
        if not iq.answers and iq.at < now - in_time:
            if _is_hurt(iq, iq.at + in_time, by_name, faults):
                verdict.counts["iqs with nobody to answer, or nobody to be answered"] += 1
            else:
                verdict.wrong.append(f"not answered: {iq.id}, sent at {iq.at:.2f}, {_ways(iq, by_name)}")
    return verdict


def _judge_answers(
    iq: Asked, lives: Mapping[str, Sequence[Life]], faults: Sequence[Fault], verdict: Verdict
) -> None:
    """One whose node was given up was answered by an error, and may have been asked all the same. An answer
    that a killed node had handed on comes once more to who has the name next.
    """
    kinds = [kind for _, kind, _ in iq.answers]
    if len(kinds) == 2 and iq.answers[0][0] <= iq.life.ended < iq.answers[1][0]:
        verdict.counts["iqs answered once more when the asker's session was over"] += 1
        return
    survived = [fault for fault in faults if fault.kind in SURVIVED]
    if len({id(life) for life in iq.lives}) == 2 == len(kinds) and _was_hurt(iq, survived):
        verdict.counts["iqs answered on both of two connections of one name"] += 1
    elif len(kinds) == 2 and kinds[0] == "error" and _is_hurt(iq, iq.answers[1][0], lives, survived):
        verdict.counts["iqs answered after a heal, though there had been an error"] += 1
    else:
        verdict.wrong.append(f"answered twice: {iq.id}, {iq.answers}")


def _was_hurt(iq: Asked, faults: Sequence[Fault]) -> bool:
    """Whether the node by which it was asked was hurt: then its client may have had another session as well,
    and that was answered, too.
    """
    last = iq.answers[-1][0]
    return any(iq.life.node in it.nodes and it.began <= last and iq.at <= it.ended for it in faults)


def _ways(iq: Asked, lives: Mapping[str, Sequence[Life]]) -> str:
    """Who was where."""
    about = [life for life in lives[iq.to.partition("@")[0]] if life.began <= iq.at + ANSWER_SECONDS]
    return "; ".join(_life(life) for life in (iq.life, *about[-2:]))


def _life(life: Life) -> str:
    return f"{life.who} on node {life.node} from {life.began:.2f} to {life.ended:.2f}"


def _is_hurt(iq: Asked, until: float, lives: Mapping[str, Sequence[Life]], faults: Sequence[Fault]) -> bool:
    """Whether one of the two had gone by then, or a node of theirs was hurt."""
    if iq.life.ended <= until:
        return True
    about = [life for life in lives[iq.to.partition("@")[0]] if life.began <= until and life.ended >= iq.at]
    if any(life.ended <= until for life in about):
        return True
    nodes = {iq.life.node, *(life.node for life in about)}
    return any(
        nodes.intersection(fault.nodes) and fault.began <= until and fault.ended >= iq.at for fault in faults
    )
