"""When processes were missed that were killed, and which accounts had sessions there: so who comes without
the id of a session is given nothing of a process on which his account had none, nor what came after it.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Collection, Iterable, Sequence
from typing import Final, NamedTuple
from zlib import crc32

from xmppd import hooks
from xmppd.plugin import Lru, Session, StoreError, Table, nobody

from .ids import MICROSECONDS, at_of, bound
from .watermark import BEHIND_SECONDS, DEAD_SECONDS, Watermark, in_turns

SLACK_SECONDS: Final = 60.0
"""How much younger than its last mark a message may be that a process of several has handed on."""
APART_SECONDS: Final = 2.0
"""How much younger one may be than the moment in which the process was missed, by the clocks of both."""
ALIKE_SECONDS: Final = 10.0
"""Within so many seconds all nodes have missed a process, and one row tells what they know."""
LETTERS: Final = "I"
YOUNG_SECONDS: Final = 1.0
SHOWN: Final = 1000
"""Of a session that began so lately, and of how many, it is remembered that all others were told of it."""


class Loss:
    """`at`: the first bytes of ids, when a process was missed. `account in loss`: whether an account had a
    session there then or some seconds before, or one with the same number.
    """

    __slots__ = ("_numbers", "at")

    def __init__(self, at: bytes, numbers: Iterable[int]) -> None:
        self.at = at
        self._numbers = array(LETTERS, sorted(numbers))

    @classmethod
    def of(cls, at: bytes, packed: bytes) -> Loss:
        """From a row."""
        return cls(at, (int.from_bytes(packed[i : i + 4], "big") for i in range(0, len(packed), 4)))

    def __contains__(self, account: str) -> bool:
        number = number_of(account)
        place = bisect_left(self._numbers, number)
        return place < len(self._numbers) and self._numbers[place] == number

    def packed(self) -> bytes:
        """For a row: four bytes for each account."""
        return b"".join([number.to_bytes(4, "big") for number in self._numbers])


class Dead(NamedTuple):
    """A process that was killed: its node, its last mark, and when it wrote that (b"": nobody knows)."""

    node: str
    mark: bytes
    at: bytes


class Losses(Watermark):
    """Knows of each process that is missed who was there: by itself, or by what another node has written."""

    losses = Table(
        partition=("process",),
        columns={"at": "blob", "accounts": "blob"},
        person=nobody("numbers of four bytes, of which many accounts may have the same"),
    )

    async def start(self) -> None:
        """No process is missed."""
        await super().start()
        self._losses: dict[str, Loss] = {}
        self._missed: dict[str, tuple[str, bytes]] = {}
        self._shown: Lru[Session, bool] = Lru(SHOWN)
        self.order.on_going = self._show

    def _show(self, account: str) -> None:
        """Other nodes are told of a session before it is known to anybody that it was given something: places
        wait a moment for what else there is to say.
        """
        since = self.now() - YOUNG_SECONDS
        young = [one for one in self.server.sessions(account) if one.since > since]
        if any(self._shown.get(one) is None for one in young):
            for one in young:
                self._shown.put(one, True)
            for node in self.server.other_nodes():
                self.hear.tell_node(node, self.server.node, ())

    def misses(self, process: str, node: str) -> None:
        """A process of a node is not there any more."""
        self._missed[node] = process, bound(self.server.ids.time.read())

    @hooks.sessions_lost
    async def note_loss(self, node: str, accounts: Collection[str]) -> None:
        """Who was there, for nodes that begin later."""
        process, at = self._missed.pop(node, ("", b""))
        if not process:
            return
        loss = Loss(at, [number_of(account) async for account in in_turns([*accounts])])
        self._losses[process] = loss
        try:
            row = await self.losses.get(process)
            alike = bound(at_of(at) - int(ALIKE_SECONDS * MICROSECONDS))
            if row is None or row["at"] < alike:
                new = {"process": process, "at": at, "accounts": loss.packed()}
                await self.losses.put(new, ttl=DEAD_SECONDS)
        except StoreError as error:
            self.log.warning("store-failed", extra={"kind": "losses", "error": str(error)})

    async def _learn_losses(self, processes: Sequence[str]) -> None:
        """Read what others know of these, and forget all others."""
        unknown = [process for process in processes if process not in self._losses]
        rows = await self.losses.get_many(unknown) if unknown and self.server.has_other_nodes else ()
        for process, row in zip(unknown, rows, strict=bool(rows)):
            if row is not None and process not in self._losses:
                self._losses[process] = Loss.of(row["at"], row["accounts"])
        for process in self._losses.keys() - {*processes} - {process for process, _ in self._missed.values()}:
            del self._losses[process]

    def _loss_of(self, process: str, dead: Dead) -> Loss | None:
        """What is known of who was there, unless the process was at work after it was missed."""
        loss = self._losses.get(process)
        return loss if loss is not None and dead.at and dead.at <= loss.at else None

    def _end_of(self, process: str, dead: Dead) -> bytes:
        """Before which all messages are that it has handed on."""
        began, latest = self.progress.began, after(dead.mark)
        if not self.server.has_other_nodes and began >= dead.mark:  # else the clock was set back
            return began
        loss = self._loss_of(process, dead)
        return latest if loss is None else min(latest, later(loss.at, APART_SECONDS))


def number_of(account: str) -> int:
    """What stands for it: 32 bits."""
    return crc32(account.encode())


def later(id: bytes, seconds: float) -> bytes:
    """The first bytes of ids so many seconds later."""
    return bound(at_of(id) + int(seconds * MICROSECONDS))


def after(mark: bytes) -> bytes:
    """Behind what a process has handed on that did not write another mark."""
    return later(mark, BEHIND_SECONDS + SLACK_SECONDS)
