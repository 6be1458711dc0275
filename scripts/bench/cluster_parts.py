#!/usr/bin/python3
"""What parts of the cluster cost by themselves: records in frames, trunks, whereabouts. CPU of one process.

usage: scripts/bench/cluster-parts [SESSIONS]
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from pathlib import Path
from time import process_time, thread_time

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from xmppd.cluster.records import TOP, Frame, Message, decode, encode
from xmppd.cluster.trunk import Trunk
from xmppd.cluster.whereabouts import Place, Whereabouts

RAW = (
    b"<message from='alice@example.com/phone' to='bob@example.com' type='chat'>" + b"x" * 160 + b"</message>"
)
ROUNDS = 5


def best(do: Callable[[], object], count: int) -> float:
    """Microseconds of CPU of one of `count` things that `do` does, in the best of some rounds."""
    times = []
    for _ in range(ROUNDS):
        start = process_time()
        do()
        times.append(process_time() - start)
    return min(times) / count * 1e6


def message(id: int) -> Message:
    return Message(id, "bob@example.com", "alice@example.com/phone", TOP, False, RAW)


def packing(size: int, times: int = 20_000) -> tuple[float, float]:
    """Of a message in a frame of `size`: packed, unpacked."""
    frame = Frame(1, 1, [], [], [message(id) for id in range(size)])
    data = encode(frame)[4:]

    def pack() -> None:
        for _ in range(times):
            encode(frame)

    def unpack() -> None:
        for _ in range(times):
            decode(data)

    return best(pack, times * size), best(unpack, times * size)


def trunks(size: int, times: int = 5_000) -> float:
    """Of a message posted, taken and settled, `size` in a frame, each frame acknowledged."""
    near: Trunk[object] = Trunk(lambda: 0.0)
    far: Trunk[object] = Trunk(lambda: 0.0)
    for trunk in (near, far):
        trunk.resume(0, 0.0)

    def pass_on() -> None:
        for _ in range(times):
            for _ in range(size):
                near.post(message(near.next_id), 300, None)
            for data in near.flush():
                far.take(memoryview(data)[4:])
            for data in far.flush():
                near.take(memoryview(data)[4:])

    return best(pass_on, times * size)


def resident() -> int:
    """Bytes of memory that this process has."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096


def whereabouts(sessions: int) -> None:
    """Memory and time with so many sessions, of which one in ten is the second one of its account."""
    gc.collect()
    before = resident()
    known = Whereabouts()
    accounts = [f"player{number * 7919 % sessions}@game.example.com" for number in range(sessions * 9 // 10)]
    kept = resident()
    start = process_time()
    for number, account in enumerate(accounts):
        known.put(account, Place(1 + number % 7, "client", number, 0))
    for number in range(sessions - len(accounts)):
        known.put(accounts[number], Place(1 + (number + 3) % 7, "phone", number, 5))
    filled = process_time() - start
    whole, names = (resident() - before) / sessions, (kept - before) / sessions
    print(f"{len(known)} sessions: {whole:.0f} bytes each, {names:.0f} of them for the names of accounts")
    print(f"  {'a new place':42}{filled / sessions * 1e6:8.2f} us")
    half = len(accounts) // 2
    there = accounts[half : half + sessions // 10]
    absent = [account + "x" for account in there]
    asked = len(there)

    def change() -> None:
        for number, account in enumerate(there):
            known.put(account, Place(1 + (number + half) % 7, "client", number + half, 3))

    def move() -> None:
        for number, account in enumerate(there):
            node = 1 + (number + half) % 7
            known.end(account, node, "client", number + half)
            known.put(account, Place(node, "client", number + half, 0))

    friends = [there[start : start + 200] for start in range(0, len(there) - 200, 200)]
    strangers = [absent[start : start + 200] for start in range(0, len(absent) - 200, 200)]
    for what, do in (
        ("one of 200 contacts who are there", lambda: [known.spread(names) for names in friends]),
        ("one of 200 who are not", lambda: [known.spread(names) for names in strangers]),
        ("places of an account", lambda: [known.of(account) for account in there]),
        ("places of an account that is not there", lambda: [known.of(account) for account in absent]),
        ("nodes of an account", lambda: [known.nodes(account) for account in there]),
        ("a priority changed", change),
        ("ended and put again", move),
    ):
        print(f"  {what:42}{best(do, asked):8.2f} us")
    for node in (3, 200):
        found = sum(place is not None for place in known.places_of(node))
        whole = best(lambda node=node: sum(1 for _ in known.places_of(node)), 1000)
        print(f"  {found:6} places of a node found in{whole:17.1f} ms")


def longest(sessions: int) -> float:
    """Milliseconds of CPU of the longest of so many new places."""
    known, longest = Whereabouts(), 0.0
    for number in range(sessions):
        account, place = f"player{number}@game.example.com", Place(1 + number % 7, "client", number, 0)
        start = thread_time()
        known.put(account, place)
        longest = max(longest, thread_time() - start)
    return longest * 1e3


def main() -> None:
    sessions = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    for size in (1, 10, 20):
        pack, unpack = packing(size)
        print(f"message of {len(RAW)} bytes, {size:2} in a frame: packed {pack:.2f}, unpacked {unpack:.2f}, "
              f"from trunk to trunk and settled {trunks(size):.2f} us")  # fmt: skip
    whereabouts(sessions)
    print(f"  {'the longest of all new places':42}{longest(sessions):8.2f} ms")


if __name__ == "__main__":
    main()
