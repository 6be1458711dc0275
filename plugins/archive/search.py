"""Search in an archive (XEP-0431): messages are read in the direction that was asked for, and looked at."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import Final

from xmppd.plugin import Lru, Plugin, StanzaError, cluster_signal

from .config import ArchiveConfig
from .query import Query
from .reading import Archived, Page, Reader, between, is_with, sifted
from .words import Words

MINUTE: Final = 60.0
SEARCHERS: Final = 10_000
"""Of how many accounts it is remembered when they searched."""
FIRST: Final = 50
AT_ONCE: Final = 200
"""How many messages are read at once, at first and at most: the loop is held for as long as that takes."""


class Allowance:
    """How often an account may search: `most` times a minute, and one at a time. `on_search` is called with
    the account when one begins, and has it counted, here and on other nodes.
    """

    def __init__(self, most: int, now: Callable[[], float]) -> None:
        self.on_search: Callable[[str], None] = self.count
        self._most = most
        self._now = now
        self._recent: Lru[str, deque[float]] = Lru(SEARCHERS)
        self._searching: set[str] = set()

    @contextmanager
    def one(self, account: str) -> Iterator[None]:
        """Around a search; StanzaError resource-constraint (wait) when it would be one too many."""
        now, recent = self._now(), self._recent.get(account) or deque()
        while recent and recent[0] <= now - MINUTE:
            recent.popleft()
        if account in self._searching or len(recent) >= self._most:
            raise StanzaError("resource-constraint", "That was one search too many; wait a bit.", type="wait")
        self.on_search(account)
        self._searching.add(account)
        try:
            yield
        finally:
            self._searching.discard(account)

    def count(self, account: str) -> None:
        """One more begins."""
        recent = self._recent.get(account)
        if recent is None:
            recent = deque(maxlen=self._most)
        recent.append(self._now())
        self._recent.put(account, recent)


class Searches(Plugin):
    """The part of the plugin that counts them."""

    config: ArchiveConfig

    async def start(self) -> None:
        """Nobody searched yet."""
        await super().start()
        self.allowance = Allowance(self.config.searches, self.now)
        self.allowance.on_search = self.search_begun.tell

    @cluster_signal
    def search_begun(self, account: str) -> None:
        """An account searches, on one of the nodes: it counts on all."""
        self.allowance.count(account)


class Searcher(Reader):
    """Finds messages in the archive of one owner."""

    async def search(
        self,
        query: Query,
        words: Words,
        oldest: int,
        horizon: bytes,
        *,
        most: int,
        is_over: Callable[[], bool],
    ) -> Page:
        """What `page` would give, if only messages that have these words were in the archive. About `most`
        are looked at: then the page ends with the last of those, whether it has the words or not, so that
        who asks for what is behind it goes on there. It ends as well once nobody waits for it any more.
        """
        if query.ids is not None:
            found = await self._all_of(query.ids, oldest)
            return Page([each for each in found if words.are_in(each.stanza)], is_complete=True)
        await self._check(query.named, oldest)
        after, before = between(query, oldest, horizon)
        if query.size == 0:
            return Page([], is_complete=False)
        async with aclosing(self._pieces(after, before, query)) as pieces:
            return await sifted(
                pieces,
                query,
                lambda message: words.are_in(message.stanza) and is_with(message, query.address),
                enough=query.size,
                most=most,
                is_over=is_over,
            )

    async def _pieces(
        self, after: bytes, before: bytes, query: Query
    ) -> AsyncGenerator[list[Archived], None]:
        """All that is to be looked at, some at a time."""
        if query.peer:
            spans, _ = await self._spans(query.peer, after, before, reverse=query.reverse)
            for span in spans:
                pieces = self._all_in(span, query.peer, FIRST, reverse=query.reverse, most=AT_ONCE)
                async for piece in pieces:
                    await asyncio.sleep(0)
                    yield piece
            return
        async for piece in self._by_months(after, before, FIRST, reverse=query.reverse, most=AT_ONCE):
            await asyncio.sleep(0)
            yield piece
