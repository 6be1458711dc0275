"""Changes what is between two players, and lets both see it."""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import TYPE_CHECKING, Final, cast

from xmppd.plugin import AccountUnknown, Person, RosterCounts, StanzaError, Table, every, nobody

from .pairs import ASKED, FRIENDS, NONE, Deed, Pair, expire, half, pair_of, part, row_of

if TYPE_CHECKING:
    from . import Friends
    from .telling import Foresee

ATTEMPTS: Final = 32
ROUNDS: Final = 16
DAY: Final = 86_400.0
PAST_SECONDS: Final = 7 * DAY
"""So long it is remembered that nothing is between two: no write of before comes later."""
LATE_SECONDS: Final = 120.0
"""After so long what was begun is looked at by another node."""
ENDS, MOVED = "ends", "moved"
AGAIN_MINUTES: Final = 5
"""Minutes that are looked at more than once: clocks differ."""
MOST_MINUTES: Final = 2000
"""So many are looked at in one go, after a pause."""
LOOK_SECONDS: Final = 30.0


class Bonds:
    """The tables of pairs, and how they are changed."""

    pairs = Table(
        partition=("one",),
        cluster=("other",),
        columns={
            "state": "text",
            "by": "text",
            "text": "text",
            "since": "timestamp",
            "expires": "timestamp",
            "version": "int",
        },
        person=Person("one", mentions={"other": "deleted"}),
    )
    """The truth of each pair: `one` is the smaller account."""
    due = Table(
        partition=("minute",),
        cluster=("one", "other", "why"),
        columns={"at": "timestamp"},
        person=Person(mentions={"one": "deleted", "other": "deleted"}),
    )
    """Pairs to look at in some minute: their request ends (`why` is that), one of them was renamed, and
    rosters may not have followed (that), or what was begun (`why` is a random mark) may have been cut short.
    """
    looks = Table(
        partition=("name",), columns={"minute": "int"}, person=nobody("how far the look at requests is")
    )

    @property
    def _it(self) -> Friends:
        return cast("Friends", self)

    def begin_bonds(self) -> None:
        """Rows that are written with each deed are made in the cheapest way."""
        self._cards = self._it.cards.writer(("account", "friend", "since"))
        self._marks = self.due.writer(("minute", "one", "other", "why", "at"))

    async def between(self, one: str, other: str) -> Pair:
        """What is between two now."""
        first, second = sorted((one, other))
        return pair_of(one, other, await self.pairs.get(first, second)).at(self._it.now())

    async def act(
        self,
        doer: str,
        peer: str,
        deed: Deed,
        *,
        by: str = "",
        seen: Pair | None = None,
        most: RosterCounts | None = None,
        foresee: Foresee | None = None,
    ) -> tuple[Pair, Pair]:
        """Do something; the pair before and after, which both can see then, but for the session `by`, which
        is answered. A pair that was `seen`, or is recalled, is read only if it has changed, or if nothing
        would be done. `foresee` is done before each attempt to change it. A repeat is harmless, and finishes
        what was cut short. StanzaError where it cannot be done, as where one would have more of a kind than
        `most`.
        """
        first, second = sorted((doer, peer))
        begun = ""
        before, after = Pair(first, second), Pair(first, second)
        for _ in range(ATTEMPTS):
            now = self._it.now()
            stored = seen or pair_of(first, second, await self.pairs.get(first, second))
            before = stored.at(now)
            try:
                after = deed(before, doer, now)
            except StanzaError:
                if seen is None:
                    raise
                after = stored
            if after == stored:
                if seen is None:
                    break  # it may have been left half done
                seen = None  # is it so?
                continue
            begun = begun or secrets.token_hex(8)
            late = minute_of(now + LATE_SECONDS)
            await self._note(first, second, (late, begun), *ends_of(after))
            written = row_of(after) | {"version": max(stored.version + 1, int(now * 1000))}
            expect = {"version": stored.version} if stored.version else None
            ttl = PAST_SECONDS if after.state == NONE else None
            if foresee is not None:
                await foresee(before, after, stored.version)
            if await self.pairs.put_if(written, expect, ttl=ttl):
                stored = replace(after, version=int(str(written["version"])))
                break
            seen = None
        else:
            raise StanzaError("resource-constraint", "Too many change this at once; try again.")
        try:
            after, is_settled = await self._follow(stored, by, most)
        except StanzaError:
            await self._undo(stored, before)
            raise
        if after != before and before.expires is not None and not ends_of(after):
            await self.due.delete(str(minute_of(before.expires)), first, second, ENDS)
        if begun and is_settled:
            await self.due.delete(str(late), first, second, begun)
        return before, after

    async def _undo(self, pair: Pair, before: Pair) -> None:
        """One of the two has no room, or is no more: nothing is between them, but a request that was granted
        waits on. What became of the pair meanwhile is another's matter.
        """
        now = self._it.now()
        if pair.version and pair.state != NONE:
            is_asked = before.state == ASKED and pair.state == FRIENDS
            undone = before if is_asked else part(pair, "", now)
            row = row_of(undone) | {"version": max(pair.version + 1, int(now * 1000))}
            await self.pairs.put_if(row, {"version": pair.version}, ttl=None if is_asked else PAST_SECONDS)
        await self.show(pair.one, pair.other)

    async def show(self, first: str, second: str) -> Pair:
        """Let both rosters and lists say what the row of the pair says; StanzaError where a roster has no
        room.
        """
        return (await self._follow(pair_of(first, second, await self.pairs.get(first, second))))[0]

    async def _follow(
        self, stored: Pair, by: str = "", most: RosterCounts | None = None
    ) -> tuple[Pair, bool]:
        """The same of a pair as it was stored, again until it stands still; how it is then, and whether it
        does.
        """
        first, second, rosters = stored.one, stored.other, self._it.server.rosters
        for _ in range(ROUNDS):
            pair = stored.at(self._it.now())
            if pair.state == NONE:
                await self._it.cards.delete(first, second)
                await self._it.cards.delete(second, first)
            else:
                halves = (first, second, pair.since), (second, first, pair.since)
                await self._it.cards.write([self._cards.rows(halves)])
            await rosters.relate(first, second, pair.seen_by(first), status=pair.text, most=most)
            stored, shown = pair_of(first, second, await self.pairs.get(first, second)), stored
            if stored.version == shown.version:
                return await self._it.tell(pair, by), True
        return stored, False

    async def rename_pair(self, old: str, new: str, friend: str) -> None:
        """The pair of a player and an account that has another address: its row may be under the old one yet,
        or where the smaller of the two is another one than before. A repeat is harmless.
        """
        kept = pair_of(new, friend, None)
        for first, second in ((friend, old), (new, friend)):
            row = await self.pairs.get(first, second)
            if row is None:
                continue
            if row["expires"] is not None:
                await self._note(kept.one, kept.other, (minute_of(row["expires"]), ENDS))
            if (first, second) == (kept.one, kept.other) and row["by"] != old:
                continue
            by = new if row["by"] == old else row["by"]
            moved = {**row, "one": kept.one, "other": kept.other, "by": by}
            if (first, second) == (kept.one, kept.other):
                moved["version"] = row["version"] + 1
                await self.pairs.put_if(moved, {"version": row["version"]})
            else:
                await self.pairs.put_if(moved, None)
                await self.pairs.delete_if(first, second, expect={"version": row["version"]})
        # who did something under the old address meanwhile may have come half way
        late = minute_of(self._it.now() + LATE_SECONDS)
        await self._note(kept.one, kept.other, (late, MOVED))

    # what is late

    async def _note(self, first: str, second: str, *looks: tuple[int, str]) -> None:
        """Have a pair looked at when those minutes are over, each for a reason."""
        now = self._it.now()
        rows = [(str(minute), first, second, why, now) for minute, why in looks]
        last = max(minute for minute, _ in looks) * 60.0
        await self.due.write([self._marks.rows(rows)], ttl=max(0.0, last - now) + 30 * DAY)

    @every(LOOK_SECONDS, once=True)
    async def look(self) -> None:
        """End requests whose time is over, and finish what nodes that died had begun."""
        last = minute_of(self._it.now()) - 1
        row = await self.looks.get("due")
        done = last if row is None else min(row["minute"], last)
        first = done - AGAIN_MINUTES + 1
        last = min(last, first + MOST_MINUTES)
        for minute in range(first, last + 1):
            await self._look_at_all(str(minute))
            if minute > done or (row is None and minute == last):
                await self.looks.put({"name": "due", "minute": minute})

    async def _look_at_all(self, minute: str) -> None:
        page: bytes | None = None
        while True:
            found = await self.due.scan(minute, limit=200, page=page)
            for row in found.rows:
                if row["why"] != MOVED or not await self._fits(row["one"], row["other"]):
                    await self._look_at(row["one"], row["other"], is_moved=row["why"] == MOVED)
                await self.due.delete(minute, row["one"], row["other"], row["why"])
            if (page := found.next) is None:
                return

    async def _fits(self, first: str, second: str) -> bool:
        """Whether both rosters say what the row of a pair says, and no block is against it."""
        pair, rosters = await self.between(first, second), self._it.server.rosters
        if pair.state != NONE and await self._it.is_barred(first, second):
            return False
        try:
            halves = [half(await rosters.item(*it)) for it in ((first, second), (second, first))]
        except AccountUnknown:
            return False
        return halves == [pair.seen_by(first), pair.seen_by(second)]

    async def _look_at(self, first: str, second: str, *, is_moved: bool) -> None:
        try:
            async with self._it.server.writing_both(first, second) as pair:
                is_over = is_moved and await self._it.is_barred(*pair)
                await self.act(*pair, part if is_over else expire)
        except StanzaError as error:
            extra = {"jid": first, "contact": second, "error": str(error)}
            self._it.log.warning("friends-not-shown", extra=extra)


def ends_of(pair: Pair) -> list[tuple[int, str]]:
    """The minute in which a request ends, and that this is why the pair is looked at then."""
    return [(minute_of(pair.expires), ENDS)] if pair.state == ASKED and pair.expires is not None else []


def minute_of(at: float) -> int:
    """The minute of a moment, since the epoch."""
    return int(at // 60)
