"""One run over one server: operations from a seed, or from a list; and making a list shorter that fails."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from random import Random

from fuzzing.arena import Arena, Finding, Op, encoded
from fuzzing.grammar import Grammar
from fuzzing.jids import SLOTS
from fuzzing.mutate import Mutator

CHECK_EVERY = 40
Around = Callable[[Arena], None]
"""Does something to a server before it is fuzzed: breaks it, for one."""


@dataclass
class Outcome:
    """What a run did, and what it found."""

    ops: list[Op] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    finding: Finding | None = None


class Generator:
    """Draws operations."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.grammar = Grammar(self.random)
        self.mutator = Mutator(self.random)

    def prologue(self) -> list[Op]:
        """Everybody comes, most with their roster, some as friends."""
        ops: list[Op] = [["login", slot] for slot in range(len(SLOTS))]
        for slot in range(len(SLOTS)):
            if self.random.random() < 0.8:
                ops.append(["send", slot, "<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>", []])
            if self.random.random() < 0.9:
                ops.append(["send", slot, "<presence/>", []])
        return ops

    def draw(self, arena: Arena) -> Op:
        """The next operation."""
        random = self.random
        absent = [slot for slot, seat in enumerate(arena.seats) if seat.wire is None]
        if absent and random.random() < 0.3:
            return ["login", random.choice(absent)]
        slot = random.randrange(len(SLOTS))
        draw = random.random()
        if draw < 0.9:
            stanzas = [self.grammar.stanza() for _ in range(random.choice((1, 1, 2, 3, 5)))]
            return self._send(slot, "".join(stanzas).encode())
        if draw < 0.97:
            return self._send(slot, self.mutator.mutate(self.grammar.stanza().encode()))
        if draw < 0.975:
            return self._send(slot, self.mutator.huge())
        if draw < 0.98:
            return self._send(slot, self.mutator.hazard())
        if draw < 0.99:
            return self._stranger()
        return random.choice(
            [["drop", slot], ["login", slot], ["wait"], self._send(slot, b"</stream:stream>")]
        )

    def _send(self, slot: int, data: bytes) -> Op:
        return ["send", slot, encoded(data), self._cuts(data)]

    def _stranger(self) -> Op:
        random = self.random
        data = self.grammar.header().encode()
        if random.random() < 0.3:
            data = self.mutator.mutate(data)
        while random.random() < 0.5:
            more = self.mutator.hazard() if random.random() < 0.2 else self.grammar.stanza().encode()
            data += more
        return ["stranger", encoded(data), self._cuts(data)]

    def _cuts(self, data: bytes) -> list[int]:
        random = self.random
        if random.random() > 0.06 or len(data) < 2:
            return []
        if len(data) < 120 and random.random() < 0.2:
            return list(range(1, len(data)))
        return sorted(random.sample(range(1, len(data)), min(len(data) - 1, random.choice((1, 1, 2, 5)))))


async def explore(seed: int, stanzas: int, around: Around | None = None) -> Outcome:
    """A run from a seed until so many stanzas were sent, or something was found."""
    generator, outcome = Generator(seed), Outcome()
    async with Arena() as arena:
        if around is not None:
            around(arena)
        outcome.counts = arena.counts
        try:
            for op in generator.prologue():
                outcome.ops.append(op)
                await arena.do(op)
            while arena.counts["stanzas"] + arena.counts["openings"] < stanzas:
                op = generator.draw(arena)
                outcome.ops.append(op)
                await arena.do(op)
                if len(outcome.ops) % CHECK_EVERY == 0:
                    await arena.check()
            await arena.finish()
        except Finding as finding:
            outcome.finding = finding
    return outcome


async def replay(ops: list[Op], around: Around | None = None, check_every: int = 1) -> Finding | None:
    """Repeat operations; what they find."""
    async with Arena() as arena:
        if around is not None:
            around(arena)
        try:
            for index, op in enumerate(ops):
                await arena.do(op)
                if index % check_every == 0:
                    await arena.check()
            await arena.finish()
        except Finding as finding:
            return finding
    return None


async def shrink(ops: list[Op], kind: str, around: Around | None = None, tries: int = 400) -> list[Op]:
    """Fewer operations that lead to a finding of the same kind (delta debugging)."""

    async def fails(candidate: list[Op]) -> bool:
        nonlocal tries
        tries -= 1
        found = await replay(candidate, around, check_every=CHECK_EVERY if len(candidate) > 200 else 1)
        return found is not None and found.kind == kind

    size = max(1, len(ops) // 2)
    while tries > 0:
        ops, smaller = await _without(ops, size, fails)
        if size == 1 and not smaller:
            break
        size = max(1, size // 2)
    return ops


async def _without(
    ops: list[Op], size: int, fails: Callable[[list[Op]], Awaitable[bool]]
) -> tuple[list[Op], bool]:
    """The operations less every stretch of this size that does not matter; whether there was any."""
    smaller = False
    end = len(ops)
    while end > 0:
        candidate = ops[: max(0, end - size)] + ops[end:]
        if await fails(candidate):
            ops, smaller = candidate, True
        end -= size
    return ops, smaller
