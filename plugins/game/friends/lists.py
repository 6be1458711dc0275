"""The list of friends as a game's client reads it: names, notes, groups, and who played together lately."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from xmppd.plugin import (
    SELF,
    CommandError,
    Delete,
    Element,
    Person,
    Put,
    Request,
    StanzaError,
    Table,
    element,
    iq_get,
    iq_set,
    offered,
    utc_stamp,
)

from .pairs import FRIENDS, Pair
from .telling import FRIENDS_LIST, NS

if TYPE_CHECKING:
    from . import Friends

NOTE: Final = f"{{{NS}}}note"
GROUP: Final = f"{{{NS}}}group"
GROUPS: Final = f"{{{NS}}}groups"
RECENT: Final = f"{{{NS}}}recent"
PLAYER: Final = f"{{{NS}}}player"
MOST_PRIORITY: Final = 1_000_000
MOST_NAME: Final = 100
DAY: Final = 86_400.0


class Entry(NamedTuple):
    """One line of a list: what is between the two, and the name, groups and note of the other one."""

    pair: Pair
    name: str
    groups: tuple[str, ...]
    note: str


class Lists:
    """Reads and changes what a player notes about his friends."""

    groups = Table(
        partition=("account",), cluster=("name",), columns={"priority": "int"}, person=Person("account")
    )
    """In which order a player wants the groups of his list."""
    met = Table(
        partition=("account",),
        cluster=("peer",),
        columns={"at": "timestamp", "what": "text"},
        ttl=365 * DAY,
        person=Person("account", mentions={"peer": "deleted"}),
    )
    """With whom a player has played lately."""

    @property
    def _list(self) -> Friends:
        return cast("Friends", self)

    async def cards_of(self, account: str) -> Sequence[Mapping[str, Any]]:
        """All to whom a player is anything, with notes."""
        return (await self._list.cards.scan(account)).rows

    @offered
    async def groups_of(self, account: str) -> dict[str, int]:
        """The groups that a player gave a priority, with that."""
        return {row["name"]: row["priority"] for row in (await self.groups.scan(account)).rows}

    # the list

    @iq_get(FRIENDS_LIST, SELF)
    async def list_friends(self, request: Request) -> Element:
        """Friends, requests and groups; from now on the session is told of changes."""
        session = request.session
        self._list.is_listening[session] = not session.is_anonymous
        if session.is_anonymous:
            return element(FRIENDS_LIST)
        account = session.account
        rows = [await self._entry(account, entry) for entry in await self.entries_of(account)]
        order = sorted((await self.groups_of(account)).items(), key=lambda it: (it[1], it[0]))
        groups = [element(GROUP, {"name": name, "priority": str(priority)}) for name, priority in order]
        return element(FRIENDS_LIST, None, *rows, *groups)

    @offered
    async def entries_of(self, account: str) -> list[Entry]:
        """To whom a player is anything."""
        friends = self._list
        items = [
            it
            for it in await friends.server.rosters.items(account)
            if it.subscription == "both" or it.ask or it.pending_in
        ]
        cards = {row["friend"]: row for row in await self.cards_of(account)}
        names = await friends.names_of([it.contact for it in items])
        found = []
        for item in items:
            card = cards.get(item.contact, {})
            if item.subscription == "both":
                first, second = sorted((account, item.contact))
                pair = Pair(first, second, FRIENDS, since=card.get("since"))
            else:
                pair = await friends.between(account, item.contact)
            found.append(Entry(pair, names.get(item.contact, ""), item.groups, card.get("note") or ""))
        return found

    async def _entry(self, account: str, entry: Entry) -> Element:
        friends = self._list
        more = [element(GROUP, None, group) for group in entry.groups]
        if entry.pair.state != FRIENDS:
            return friends.item(entry.pair, account, entry.name, *more)
        if entry.note:
            more.append(element(NOTE, None, entry.note))
        is_online, since = await self.seen(entry.pair.of(account), account)
        shown = {"online": "true"} if is_online else {"last-online": utc_stamp(since)} if since else {}
        return friends.item(entry.pair, account, entry.name, *more, **shown)

    @offered
    async def seen(self, contact: str, viewer: str) -> tuple[bool, float]:
        """Whether a friend is there, or since when he is not (seconds since the epoch, 0.0: not known), as he
        looks to the viewer.
        """
        friends = self._list
        since = await friends.server.away_since(contact, viewer)
        if since is None and friends.server.locate(contact):
            return True, 0.0
        if since is None and friends.last:
            since = (await friends.last.logouts_of([contact])).get(contact)
        return False, since or 0.0

    # what is noted

    async def _friend_of(self, request: Request) -> str:
        """The friend whom a request names; item-not-found for others."""
        friends = self._list
        peer = await friends.peer_of(request.session, request.payload)
        if not await friends.are_friends(request.session.account, peer):
            raise StanzaError("item-not-found", "This player is not your friend.")
        return peer

    @iq_set(NOTE, SELF)
    async def take_note(self, request: Request) -> None:
        """Note something about a friend, or nothing any more."""
        friends, account = self._list, request.session.account
        peer, text = await self._friend_of(request), (request.payload.text or "").strip()
        most = friends.config.note_characters
        if len(text) > most:
            raise StanzaError("not-acceptable", f"A note has at most {most} characters.")
        if text:
            text = await friends.judged(account, text, request.session.lang or "")
        async with friends.server.writing_both(account, peer) as (account, peer):
            await friends.cards.put({"account": account, "friend": peer, "note": text})
            if not await friends.are_friends(account, peer):  # he went meanwhile
                await friends.cards.delete(account, peer)

    @iq_set(GROUPS, SELF)
    async def take_groups(self, request: Request) -> None:
        """Put a friend into groups, those of the roster; into none others."""
        peer = await self._friend_of(request)
        names = [" ".join((it.text or "").split()) for it in request.payload.findall(GROUP)]
        if not all(names):
            raise StanzaError("not-acceptable", "A group has a name.")
        async with self._list.server.writing_both(request.session.account, peer) as (account, peer):
            if await self._list.are_friends(account, peer):  # he may have gone meanwhile
                await self._list.server.rosters.set_item(account, peer, groups=list(dict.fromkeys(names)))

    @iq_set(GROUP, SELF)
    async def take_group(self, request: Request) -> None:
        """Give a group a priority, or none any more (without `priority`)."""
        session, payload = request.session, request.payload
        if session.is_anonymous:
            raise StanzaError("not-allowed", "A guest has no friends.")
        name, priority = " ".join((payload.get("name") or "").split()), payload.get("priority")
        if not name or len(name) > MOST_NAME:
            raise StanzaError("not-acceptable", f"A group has a name of 1 to {MOST_NAME} characters.")
        async with self._list.server.writing(session.account, session) as exists:
            if not exists:
                raise StanzaError("not-allowed", "A guest has no friends.")
            if priority is None:
                await self.groups.delete(session.account, name)
                return
            if not (priority.isascii() and priority.isdigit()) or int(priority[:9]) > MOST_PRIORITY:
                raise StanzaError("bad-request", f"A priority is a number from 0 to {MOST_PRIORITY}.")
            known = await self.groups_of(session.account)
            if name not in known and len(known) >= self._list.config.groups:
                raise StanzaError("resource-constraint", "You have too many groups.")
            await self.groups.put({"account": session.account, "name": name, "priority": int(priority)})

    # who played together

    @iq_get(RECENT, SELF)
    async def list_recent(self, request: Request) -> Element:
        """With whom one has played lately, the last first."""
        rows = await self.recent_of(request.session.account)
        names = await self._list.names_of([row["peer"] for row in rows])
        return element(
            RECENT,
            None,
            *(
                element(
                    PLAYER,
                    {
                        "jid": row["peer"],
                        **({"name": names[row["peer"]]} if row["peer"] in names else {}),
                        "at": utc_stamp(row["at"]),
                        **({"what": row["what"]} if row["what"] else {}),
                    },
                )
                for row in rows
            ),
        )

    async def recent_of(self, account: str) -> list[Mapping[str, Any]]:
        """The players whom one has met lately, the last first."""
        oldest = self._list.now() - self._list.config.recent_days * DAY
        rows: list[Mapping[str, Any]] = [
            row for row in (await self.met.scan(account)).rows if row["at"] > oldest
        ]
        return sorted(rows, key=lambda row: -float(row["at"]))[: self._list.config.recent]

    async def unmeet(self, account: str) -> None:
        """The account is removed: those whom it met have not met whoever has its name next."""
        for row in (await self.met.scan(account)).rows:
            await self.met.delete(row["peer"], account)
        await self.met.delete(account)

    async def meet_as(self, old: str, new: str) -> None:
        """The account has another address, and its rows are there: those whom it met follow."""
        for row in (await self.met.scan(new)).rows:
            theirs = await self.met.get(row["peer"], old)
            if theirs is not None:
                left = theirs["at"] + self._list.config.recent_days * DAY - self._list.now()
                await self.met.put({**theirs, "peer": new}, ttl=max(1.0, left))
                await self.met.delete(row["peer"], old)

    async def played(self, accounts: Sequence[str], what: str) -> None:
        """These played together just now; a repeat is harmless."""
        friends, now = self._list, self._list.now()
        async with friends.server.writing_many(accounts) as there:
            if len(there) < len(accounts):
                raise CommandError("one of them is there no more, or is being renamed: say it again")
            for account in there:
                peers = [peer for peer in accounts if peer != account]
                rows = {row["peer"]: row["at"] for row in (await self.met.scan(account)).rows}
                rows |= dict.fromkeys(peers, now)
                kept = sorted(rows, key=lambda peer: -rows[peer])[: friends.config.recent]
                ttl = friends.config.recent_days * DAY
                writes: list[Put | Delete] = [
                    Put({"peer": peer, "at": now, "what": what}, ttl) for peer in peers
                ]
                writes = [it for it in writes if isinstance(it, Put) and it.row["peer"] in kept]
                writes += [Delete((peer,)) for peer in rows if peer not in kept and peer not in peers]
                if writes:
                    await self.met.batch(account, writes=writes)
