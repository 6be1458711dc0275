"""Messages, presence and logins between nodes and on one: the parts `chat`, `presence`, `login` and `nodes`
of `scripts/bench/cluster`.
"""

from __future__ import annotations

import math
import random
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from farm import Farm, Server, Used
from figures import Figure, middle, us

SCRAM = "--mech scram-sha-1"
CHATTERS = 700
"""The first of the accounts that write to each other."""

RING50, RING200 = (0, 100, 50), (1_240, 400, 200)
"""Rosters: the first account, how many of them, and how many contacts each has. There are three of the
latter, one behind the other.
"""

ACCOUNTS = 3_440
"""The last thousand of them know nobody."""
RING_OF = {
    "presence": ("0:100:50", "1240:400:200"),
    "login": ("1240:400:200", "1640:400:200", "2040:400:200"),
    "local": ("0:100:50",),
    "nodes": ("1000:60:50", "1060:60:50", "1120:60:50", "1180:60:50"),
}
"""Rosters that parts need, in the form of `seed`."""


@dataclass(frozen=True, slots=True)
class Load:
    """So many messages under way at once, or so many a second; `units` are measured, after as many more."""

    label: str
    under_way: int
    units: int
    rate: int = 0

    def arguments(self, seconds: float) -> str:
        """What the generator does: of each pair the first one writes."""
        pairs = f"chat --first {CHATTERS} --n {2 * self.under_way} --one-way 1 {SCRAM}"
        if self.rate:
            return f"{pairs} --rate {self.rate} --warm 0.5 --dur {seconds}"
        return f"{pairs} --window 1 --count {self.units}"


LOADS = (
    Load("200 a second, each alone", 1, 0, rate=200),
    Load("1 under way", 1, 3000),
    Load("5 under way", 5, 8000),
    Load("25 under way", 25, 15_000),
    Load("120 under way", 120, 20_000),
)
SHARED = 15
"""Messages in a frame from which on the bound is asked for."""
NODES = 3
"""Of a login."""
PACE = 40
"""Logins a second on each of them, and on one server alone: what two cores have room for."""
MOST_REMOTE = 3.0
MOST_LOGIN = 1.15
LEAST_EFFICIENCY = 0.85


def per_unit(used: Used, units: int) -> list[float]:
    """Seconds of processor time of each server for one unit."""
    return [cpu / units for cpu in used.cpu]


# messages


def chat(farm: Farm, rounds: int, *, is_short: bool) -> Iterator[Figure]:
    """A message on a server without a cluster, on one node, and from one node to another."""
    one, nodes = farm.one(), farm.nodes(2)
    loads = LOADS[1:4:2] if is_short else LOADS
    for load in loads:
        if is_short:
            load = Load(load.label, load.under_way, load.units // 10)
        kinds: Mapping[str, tuple[Sequence[Server], str]] = {
            "alone": ([one], "0" * 2 * load.under_way),
            "local": (nodes, "0" * 2 * load.under_way),
            "remote": (nodes, "01" * load.under_way),
        }
        found: dict[str, list[list[float]]] = {kind: [] for kind in kinds}
        shared: list[float] = []
        for _ in range(rounds):
            for kind, (servers, places) in kinds.items():
                report, used = farm.load(servers, f"{load.arguments(3.0)} --places {places}")
                units = report["count"]
                found[kind].append(per_unit(used, units))
                if kind == "remote":
                    shared.append(units / max(1, used.frames[0] - _asked(nodes) // 2))
        yield _chat_figure(load, found, middle(shared))


def _asked(nodes: Sequence[Server]) -> int:
    """Frames that go between nodes while each is asked how many frames it has sent."""
    return 2 * len(nodes) * (len(nodes) - 1)


def _chat_figure(load: Load, found: Mapping[str, Sequence[Sequence[float]]], shared: float) -> Figure:
    alone = middle([cpu[0] for cpu in found["alone"]])
    local = middle([cpu[0] for cpu in found["local"]])
    sender = middle([cpu[0] for cpu in found["remote"]])
    receiver = middle([cpu[1] for cpu in found["remote"]])
    whole = sender + receiver
    is_bound = shared >= SHARED
    text = (
        f"without a cluster {us(alone)}, local {us(local)}; to another node {us(sender)} + {us(receiver)} = "
        f"{us(whole)} us, **{whole / local:.2f}** of local; {shared:.1f} in a frame"
    )
    numbers = {
        "alone": alone, "local": local, "sender": sender, "receiver": receiver, "ratio": whole / local,
        "in_frame": shared,
    }  # fmt: skip
    return Figure(
        "chat",
        load.label,
        text,
        f"<= {MOST_REMOTE:.0f} where about 20 share a frame" if is_bound else "",
        whole / local <= MOST_REMOTE if is_bound else None,
        numbers,
    )


# presence


def presence(farm: Farm, rounds: int, *, is_short: bool) -> Iterator[Figure]:
    """A change of one with many contacts, who are on this server or spread over four nodes."""
    one, nodes = farm.one(), farm.nodes(4)
    for (first, count, contacts), slots, changes in (
        (RING200, 1, 100), (RING200, 8, 240), (RING50, 1, 300), (RING50, 16, 1000),
    ):  # fmt: skip
        if is_short and (slots > 1 or contacts > RING50[2]):
            continue
        changes = changes // 10 if is_short else changes
        arguments = (
            f"presence --first {first} --n {count} --R {contacts} --slots {slots} --settle 1 --quiesce 3 "
            f"--count {changes} {SCRAM}"
        )
        ours, theirs, frames = [], [], []
        for _ in range(rounds):
            _, used = farm.load([one], arguments)
            ours.append(sum(used.cpu) / changes / contacts)
            _, used = farm.load(nodes, arguments)
            theirs.append(sum(used.cpu) / changes / contacts)
            frames.append((sum(used.frames) - _asked(nodes)) / changes)
        ratio, sent = middle(theirs) / middle(ours), middle(frames)
        most = len(nodes) - 1
        yield Figure(
            "presence",
            f"one with {contacts} contacts over 4 nodes, {slots} changes at once",
            f"{sent:.2f} frames a change; a copy {us(middle(ours))} us on one server, {us(middle(theirs))} "
            f"on four, **{ratio:.2f}**",
            f"{most} frames" if slots == 1 else "",
            sent <= most * 1.05 if slots == 1 else None,
            {"frames": sent, "one": middle(ours), "four": middle(theirs), "ratio": ratio},
        )


# logins


def login(farm: Farm, rounds: int, *, is_short: bool) -> Iterator[Figure]:
    """Those of rings with 200 contacts each log in until all see each other: a ring on one server; three on
    three servers that know nothing of each other, one on each; and the same three on three nodes, everybody
    on any of them. Few and many at once, as fast as they can, and so many a second.

    Servers that share two cores cost more than one alone, whatever they say to each other; so what being one
    server costs is told by those that are apart. And what is under way at one moment shares turns, writes and
    frames: so with so many a second it is told by one server that has as many as each of the three nodes.
    """
    _, count, contacts = RING200
    chance = random.Random(3)
    one, apart, nodes = [farm.one()], farm.apart(NODES), farm.nodes(NODES)
    ring, own = "0" * count, "".join(str(node) * count for node in range(NODES))
    anywhere = "".join(chance.choice("012") for _ in range(NODES * count))
    asked: dict[str, float] = {}
    for at_once in (8,) if is_short else (8, 32):
        cpu = _logins(
            farm,
            rounds,
            {
                "one": (one, ring, f"--conc {at_once}"),
                "apart": (apart, own, f"--conc {at_once * NODES}"),
                "nodes": (nodes, anywhere, f"--conc {at_once * NODES}"),
            },
            asked,
            is_cold=at_once == 8,
        )
        ratio = cpu["nodes"] / cpu["apart"]
        yield Figure(
            "login",
            f"with {contacts} contacts, of whom half are there on average, {at_once} at once on each server",
            f"{us(cpu['one'])} us on one server, {us(cpu['apart'])} on {NODES} that are apart, "
            f"{us(cpu['nodes'])} on {NODES} nodes: **{ratio:.2f}** of those apart, "
            f"{cpu['nodes'] / cpu['one']:.2f} of one",
            f"<= {MOST_LOGIN}",
            ratio <= MOST_LOGIN,
            {**cpu, "ratio": ratio},
        )
    all_of_them = f"--login-rate {NODES * PACE} --conc 400"
    cpu = _logins(
        farm,
        rounds,
        {
            "one": (one, ring, f"--login-rate {PACE} --conc 400"),
            "nodes": (nodes, anywhere, all_of_them),
            "apart": (apart, own, all_of_them),
            "busy": (one, ring, all_of_them),
        },
        {},
    )
    ratio = cpu["nodes"] / cpu["one"]
    yield Figure(
        "login",
        f"the same, {PACE} a second on each server",
        f"{us(cpu['one'])} us on one server, {us(cpu['nodes'])} on {NODES} nodes: **{ratio:.2f}** of one "
        f"with as many as each of them, {cpu['nodes'] / cpu['busy']:.2f} of one with all "
        f"{NODES * PACE} a second ({us(cpu['busy'])}), {cpu['nodes'] / cpu['apart']:.2f} of {NODES} that are "
        f"apart ({us(cpu['apart'])})",
        f"<= {MOST_LOGIN}",
        ratio <= MOST_LOGIN,
        {**cpu, "ratio": ratio},
    )
    yield Figure(
        "login",
        "what Redis is asked for one, logout included",
        f"{asked['one']:.2f} on one server, {asked['nodes']:.2f} on {NODES} nodes",
        "no more than on one",
        asked["nodes"] <= asked["one"] + 0.1,
        {f"redis_{kind}": calls for kind, calls in asked.items()},
    )


def _logins(
    farm: Farm,
    rounds: int,
    kinds: Mapping[str, tuple[Sequence[Server], str, str]],
    asked: dict[str, float],
    *,
    is_cold: bool = False,
) -> dict[str, float]:
    """Seconds of processor time for a login of each kind, measured in turns: of so many servers, where each
    session goes, and how they come. `asked` is told what Redis is asked for one. With `is_cold` they come
    once before, so that everything is known where it can be.
    """
    cpu: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(rounds + is_cold):
        for kind, (servers, places, how) in kinds.items():
            before, began = Counter(farm.commands()), time.monotonic()
            report, _ = farm.load(
                servers,
                f"login --first {RING200[0]} --n {len(places)} --deal {len(set(places))} {how} --settle 1.5 "
                f"{SCRAM} --places {places}",
            )
            after, seconds = Counter(farm.commands()), time.monotonic() - began
            cpu[kind].append(_spent(report, 1.5) / report["ready"])
            asked[kind] = (after - before - _idle(farm, seconds)).total() / len(places)
    return {kind: middle(values[-rounds:]) for kind, values in cpu.items()}


def _spent(report: Mapping[str, Any], settle: float) -> float:
    """Seconds of processor time for all logins and what came of them in the `settle` seconds behind, without
    what the servers take when nothing happens: that grows with their number, and not with logins.
    """
    spent: float = report["settled_cpu_s"] - report["idle_cores"] * (report["login"]["seconds"] + settle)
    return spent


def _idle(farm: Farm, seconds: float) -> Counter[str]:
    """What Redis is asked in so many seconds in which nothing happens."""
    look = 4.0  # two beats of each node
    before = Counter(farm.commands())
    time.sleep(look)
    found = Counter(farm.commands()) - before
    return Counter({name: round(calls * seconds / look) for name, calls in found.items()})


# one, two, four nodes


COMMUNITIES = 4
"""Rings of contacts that know nobody of another one."""
MEMBERS, FRIENDS = 60, 50
FIRST_MEMBER = 1_000
MIX = {"chat": 10.0, "presence": 600.0, "login": 0.5}
"""What a session causes in an hour: messages, copies of presence (12 changes, 50 contacts online) and logins.
"""

HOSTED = 100_000
"""Sessions whose hour each server is given: there is as much at once as there would be, and no more, for
what is under way at one moment shares its frames and writes.
"""


def placed(count: int, nodes: int, groups: int, chance: random.Random) -> str:
    """Where `count` sessions go that are in groups of contacts: so that a random half of the others of a
    group is on other nodes, whichever.
    """
    # At home with a chance of q, else anywhere else: q^2 + (1-q)^2 / (nodes-1) = 1/2.
    share = (1 + math.sqrt(1 + nodes * (nodes - 3) / 2)) / nodes if nodes > 1 else 1.0
    found = []
    for index in range(count):
        home = index * groups // count % nodes
        others = [node for node in range(nodes) if node != home]
        found.append(home if chance.random() < share or not others else chance.choice(others))
    return "".join(map(str, found))


def _work(count: int, *, is_short: bool) -> dict[str, str]:
    """For so many servers: what the generator does, at the rate of so many sessions on each."""
    everybody = f"--first {FIRST_MEMBER} --n {COMMUNITIES * MEMBERS} {SCRAM}"
    rate, seconds = count * HOSTED / 3600, 1 if is_short else 6
    timed, changes = f"--warm 0.5 --dur {seconds}", MIX["presence"] / FRIENDS
    return {
        "chat": f"chat {everybody} --one-way 1 --rate {MIX['chat'] * rate:.0f} {timed} --body 100",
        "presence": f"presence {everybody} --R {FRIENDS} --rate {changes * rate:.0f} {timed}",
        "login": f"login {everybody} --conc {32 * count} --deal {COMMUNITIES} --settle 1",
    }


def nodes(farm: Farm, rounds: int, *, is_short: bool) -> Iterator[Figure]:
    """The same on one server, on two and four nodes with half of the contacts elsewhere, and on as many
    servers that know nothing of each other, with all contacts on the same one (see `login`).
    """
    one = farm.one()
    people = COMMUNITIES * MEMBERS
    for count in (2,) if is_short else (2, 4):
        chance = random.Random(count)
        homes = "".join(str(index * COMMUNITIES // people * count // COMMUNITIES) for index in range(people))
        kinds = {
            "one": ([one], "0" * people),
            "apart": (farm.apart(count), homes),
            "nodes": (farm.nodes(count), placed(people, count, COMMUNITIES, chance)),
        }
        found: dict[str, dict[str, list[float]]] = {key: {kind: [] for kind in kinds} for key in MIX}
        for _ in range(rounds):
            for key in MIX:
                for kind, (servers, places) in kinds.items():
                    arguments = _work(len(servers), is_short=is_short)[key]
                    report, used = farm.load(servers, f"{arguments} --places {places}")
                    if key == "login":
                        found[key][kind].append(_spent(report, 1.0) / people)
                    else:
                        found[key][kind].append(sum(used.cpu) / report["count"])
        costs = {key: {kind: middle(found[key][kind]) for kind in kinds} for key in MIX}
        for key, cost in costs.items():
            yield Figure("nodes", f"{key}, {count} nodes", _capacity(cost, count))
        hour = {kind: sum(share * costs[key][kind] for key, share in MIX.items()) for kind in kinds}
        yield Figure(
            "nodes",
            f"an hour of a session, {count} nodes",
            _capacity(hour, count),
            f">= {LEAST_EFFICIENCY}",
            hour["apart"] / hour["nodes"] >= LEAST_EFFICIENCY,
            {f"{key}_{kind}": cost[kind] for key, cost in costs.items() for kind in kinds} | hour,
        )


def _capacity(cost: Mapping[str, float], count: int) -> str:
    one, apart, ours = cost["one"], cost["apart"], cost["nodes"]
    return (
        f"{us(one)} us on one server, {us(apart)} on {count} that are apart, {us(ours)} on {count} nodes; "
        f"{count / ours:,.0f} a second of all processors, **{apart / ours:.2f}** of one apart a node, "
        f"{one / ours:.2f} of one alone"
    )
