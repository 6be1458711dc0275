"""An announcement at a pace: one node tells it, and another one goes on when that is gone."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final
from xml.etree.ElementTree import Element

from xmppd import ns
from xmppd.plugin import Plugin, StanzaError, StoreError, element

from .segment import Segment, place_of

if TYPE_CHECKING:
    from . import Announce

KIND: Final = "announcement"
"""All rows of announcements are in one partition."""
RUNNING, DONE, CANCELLED, FAILED = "running", "done", "cancelled", "failed"
BATCH: Final = 100
"""Receivers that are told in one go, at most."""
AT_ONCE: Final = 50
"""Stanzas for single accounts that are under way at once."""
BEAT_SECONDS: Final = 1.0
"""How often it is written how far an announcement has got."""
TRIES: Final = 5
"""How often one message is sent while the store cannot keep it: after 1 s, 2 s and so on."""
SLICE: Final = 500
"""Accounts that are looked at before others get their turn."""

Receivers = AsyncIterator[tuple[Sequence[str], str, int]]

SUBJECT, BODY = f"{{{ns.CLIENT}}}subject", f"{{{ns.CLIENT}}}body"


@dataclass(frozen=True)
class Announcement:
    """What is said to whom, and how far that has got: a row. `told` are receivers that were dealt with,
    `sent` copies or messages, `refused` messages that were refused; `total` is None where nobody knows.
    """

    id: str
    text: str
    subject: str
    type: str
    segment: Segment
    pace: int
    begun: float
    state: str = RUNNING
    holder: str = ""
    node: str = ""
    epoch: int = 0
    beat: int = 0
    place: str = ""
    told: int = 0
    sent: int = 0
    refused: int = 0
    total: int | None = None
    ended: float | None = None

    def row(self) -> dict[str, Any]:
        """All columns."""
        return {**vars(self), "kind": KIND, "segment": self.segment.text}


def of_row(row: Mapping[str, Any]) -> Announcement:
    """What `row` made of one."""
    fields = {name: value for name, value in row.items() if name != "kind"}
    return Announcement(**{**fields, "segment": Segment.of_text(row["segment"])})


def message(domain: str, about: Announcement, to: str = "") -> Element:
    """What a domain says to one of its own, or to each."""
    attrs = {"type": about.type, "from": domain, "id": about.id} | ({"to": to} if to else {})
    parts = [element(SUBJECT, None, about.subject)] if about.subject else []
    return element(f"{{{ns.CLIENT}}}message", attrs, *parts, element(BODY, None, about.text))


class Crier:
    """Tells one announcement on this node, while it is the one whose turn that is: by the epoch in the row,
    which rises each time another one takes over. Who was thought dead and is not can write nothing more.
    """

    def __init__(self, plugin: Announce, about: Announcement) -> None:
        self._plugin = plugin
        self.about = about
        self._said = plugin.scope.clock()
        self._waits: set[asyncio.Future[None]] = set()
        self._is_cancelled = self._is_leaving = False

    async def run(self) -> None:
        """Until everybody is told, or it is cancelled, taken over, or this instance of the plugin ends."""
        try:
            is_mine = await self._tell_all()
            if is_mine and self._is_leaving:
                is_mine = await self._write(holder="", node="")
            elif is_mine:
                is_mine = await self._end(DONE)
            if not is_mine:
                await self._write_cancelled()
        except StoreError as error:  # taken up again where it was written last
            extra = {"announcement": self.about.id, "error": str(error)}
            self._plugin.log.warning("announcement-interrupted", extra=extra)
        except Exception:
            await self._end(FAILED)
            raise

    async def _tell_all(self) -> bool:
        """Until everybody is told, or somebody else may go on; False when this is not its turn any more."""
        async for accounts, place, count in self._receivers():
            if self._is_cancelled or self._is_leaving:
                break
            began = self._plugin.scope.clock()
            await self._tell(accounts)
            self.about = replace(self.about, place=place, told=self.about.told + count)
            if self._plugin.scope.clock() - self._said >= BEAT_SECONDS and not await self._write():
                return False
            await self._pause(began + len(accounts) / self.about.pace)
        return not self._is_cancelled

    async def _end(self, state: str) -> bool:
        is_mine = await self._write(state=state, place="", ended=self._plugin.now())
        if is_mine:
            await self._plugin.receivers.delete(self.about.id)
        return is_mine

    def cancel(self) -> None:
        """It is cancelled: nobody more is told."""
        self._is_cancelled = True
        self._wake()

    def leave(self) -> None:
        """Whoever comes next may go on at once."""
        self._is_leaving = True
        self._wake()

    # whom, in an order that all nodes know

    def _receivers(self) -> Receivers:
        """Those who were not told yet, some at a time; the place where the next ones begin; how many were
        dealt with, those included who are not to be told.
        """
        segment = self.about.segment
        return self._listed() if segment.listed else self._all() if segment.everyone else self._online()

    async def _online(self) -> Receivers:
        plugin, place = self._plugin, self.about.place
        heaps: dict[str, list[str]] = {}
        async for account in online(plugin, self.about.segment):
            if (own := place_of(account)) > place:
                heaps.setdefault(own[:2], []).append(own)
        for _, heap in sorted(heaps.items()):
            heap.sort()
            for start in range(0, len(heap), self._batch):
                some = heap[start : start + self._batch]
                yield [own[3:] for own in some], some[-1], len(some)

    async def _all(self) -> Receivers:
        """By pages of all accounts; the place is the token of a page and the last account of it."""
        token, _, last = self.about.place.partition(" ")
        while True:
            page, following = await self._plugin.server.accounts.page(bytes.fromhex(token) or None, SLICE)
            left = page[page.index(last) + 1 :] if last in page else page
            names = [account for account in left if self.about.segment.names(account)]
            for start in range(0, len(names), self._batch):
                some = names[start : start + self._batch]
                yield some, f"{token} {some[-1]}", len(some)
            if following is None:
                return
            token, last = following.hex(), ""
            yield [], f"{token} ", 0

    async def _listed(self) -> Receivers:
        """The place is the number of the next one."""
        done, segment, server = int(self.about.place or 0), self.about.segment, self._plugin.server
        while True:
            page = await self._plugin.receivers.scan(self.about.id, start=(done,), limit=self._batch)
            if not page.rows:
                return
            names = [row["account"] for row in page.rows]
            done = page.rows[-1]["number"] + 1
            if not segment.everyone:
                names = await segment.present(self._plugin, filter(server.is_connected, names))
            yield names, str(done), len(page.rows)

    @property
    def _batch(self) -> int:
        return max(1, min(BATCH, self.about.pace // 5))

    # what is done

    async def _tell(self, accounts: Sequence[str]) -> None:
        if self.about.segment.everyone:
            for start in range(0, len(accounts), AT_ONCE):
                told = await asyncio.gather(*map(self._send, accounts[start : start + AT_ONCE]))
                self._count(sum(told), len(told) - sum(told))
            return
        by_domain: dict[str, list[str]] = {}
        for account in accounts:
            by_domain.setdefault(account.rpartition("@")[2], []).append(account)
        for domain, some in by_domain.items():
            try:
                self._count(await self._plugin.server.send_many(some, message(domain, self.about)), 0)
            except StoreError:  # of a plugin that records them; some of them have it
                self._count(0, len(some))

    async def _send(self, account: str) -> bool:
        """Whether it was delivered or kept. StoreError."""
        stanza = message(account.rpartition("@")[2], self.about, account)
        for number in range(TRIES):
            try:
                await self._plugin.server.send(stanza)
            except StanzaError:
                return False
            except StoreError:
                if number == TRIES - 1 or self._is_leaving or self._is_cancelled:
                    raise
                await self._pause(self._plugin.scope.clock() + 2.0**number)
            else:
                return True
        return False

    def _count(self, sent: int, refused: int) -> None:
        self.about = replace(self.about, sent=self.about.sent + sent, refused=self.about.refused + refused)

    async def _write(self, **changed: Any) -> bool:
        """How far it has got; whether this is still its turn. StoreError."""
        before = self.about
        self.about = replace(before, beat=before.beat + 1, **changed)
        self._said = self._plugin.scope.clock()
        expect = {"epoch": before.epoch, "beat": before.beat, "state": RUNNING}
        return await self._plugin.announcements.put_if(self.about.row(), expect)

    async def _write_cancelled(self) -> None:
        """How far it had got, if it was cancelled and nobody else has told it."""
        told = {"told": self.about.told, "sent": self.about.sent, "refused": self.about.refused}
        expect = {"epoch": self.about.epoch, "state": CANCELLED}
        await self._plugin.announcements.put_if({"kind": KIND, "id": self.about.id, **told}, expect)

    async def _pause(self, until: float) -> None:
        seconds = until - self._plugin.scope.clock()
        if seconds <= 0 or self._is_cancelled or self._is_leaving:
            await asyncio.sleep(0)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waits.add(future)
        timer = self._plugin.call_later(seconds, lambda: None if future.done() else future.set_result(None))
        try:
            await future
        finally:
            timer.cancel()
            self._waits.discard(future)

    def _wake(self) -> None:
        for future in self._waits:
            if not future.done():
                future.set_result(None)


async def online(plugin: Plugin, segment: Segment) -> AsyncIterator[str]:
    """Those of a segment who are online, in slices of the loop's time."""
    every = iter(plugin.server.connected())
    while some := list(itertools.islice(every, SLICE)):
        for account in await segment.present(plugin, filter(segment.names, some)):
            yield account
        await asyncio.sleep(0)
