"""Friends: always of both sides. Requests, notes, groups and who played together lately; for a standard
client all of it is a roster, whose subscriptions are both or none.
"""

from __future__ import annotations

import math
from collections.abc import Coroutine, Mapping, Sequence
from typing import Annotated, Any, Final, Protocol

from xmppd import hooks, ns
from xmppd.plugin import (
    SELF,
    AccountUnknown,
    BlockChange,
    Counter,
    Element,
    Jid,
    JidError,
    Person,
    Plugin,
    PluginConfig,
    PositiveInt,
    Request,
    RosterCounts,
    Session,
    SessionSlot,
    Stanza,
    StanzaError,
    Table,
    Uses,
    at_least,
    at_most,
    element,
    iq_set,
    offered,
    serialize,
)

from .bonds import Bonds
from .commands import FriendCommands
from .lists import Lists
from .pairs import ASKED, DEEDS, FRIENDS, NONE, Deed, Pair, accept, grant, part, request
from .telling import NS, Telling

ACTS: Final = ("accept", "decline", "cancel", "remove")
STATUS: Final = f"{{{ns.CLIENT}}}status"
ROSTER: Final = f"{{{ns.ROSTER}}}query"
ITEM: Final = f"{{{ns.ROSTER}}}item"
RETRY: Final = "{urn:xmppd:moderation:0}retry"
DAY: Final = 86_400.0
SUBSCRIPTIONS: Final = frozenset(("subscribe", "subscribed", "unsubscribe", "unsubscribed"))


class Names(Protocol):
    """What is asked of the plugin `players`."""

    def __bool__(self) -> bool: ...

    async def account_of(self, text: str) -> str | None: ...

    async def look_up(self, session: Session, text: str) -> str | None: ...

    async def names_of(self, accounts: Sequence[str]) -> dict[str, str]: ...

    async def accounts_on(self, platform: str, ids: Sequence[str]) -> dict[str, str]: ...


class Rules(Protocol):
    """What is asked of the plugin `moderation`."""

    def __bool__(self) -> bool: ...

    async def check_speaks(self, account: str, lang: str = "") -> None: ...

    async def judge(self, account: str, where: str, text: str, lang: str = "") -> Any: ...

    async def take(self, account: str, verb: str, address: str = "") -> float: ...


class Logouts(Protocol):
    """What is asked of the plugin `last`."""

    def __bool__(self) -> bool: ...

    async def logouts_of(self, accounts: Sequence[str]) -> Mapping[str, float]: ...


class FriendsConfig(PluginConfig):
    """A player has `friends` at most, waits for answers to `asking` requests, and has `asked` waiting for
    his. A request ends after `request_days` (0: never) and says something in `text_characters`. A note about
    a friend has `note_characters`; `groups` have a priority. Who played with whom is known for `recent_days`,
    of the last `recent` players.
    """

    friends: PositiveInt = 300
    asking: PositiveInt = 100
    asked: Annotated[int, at_least(1), at_most(200)] = 150
    request_days: Annotated[float, at_least(0), at_most(3650)] = 30.0
    text_characters: Annotated[int, at_least(0), at_most(1000)] = 200
    note_characters: Annotated[int, at_least(0), at_most(2000)] = 500
    groups: Annotated[int, at_least(0), at_most(200)] = 50
    recent: Annotated[int, at_least(0), at_most(500)] = 50
    recent_days: Annotated[float, at_least(1), at_most(365)] = 30.0


class Friends(Bonds, Lists, Telling, FriendCommands, Plugin):
    """Who is a friend of whom."""

    Config = FriendsConfig
    features = (NS,)
    players: Uses[Names] = Uses("players")
    moderation: Uses[Rules] = Uses("moderation")
    last: Uses[Logouts] = Uses("last")
    cards = Table(
        partition=("account",),
        cluster=("friend",),
        columns={"since": "timestamp", "note": "text"},
        person=Person("account", mentions={"friend": "deleted"}),
    )
    """Whom a player is anything to, and what he notes about friends."""
    is_listening = SessionSlot(False)
    asked = Counter("Requests for friendship.")
    made = Counter("Friendships that were made.")
    ended = Counter("Friendships that were ended.")
    refused = Counter("Requests that were refused: too many, too often, blocked, or against the rules.")

    async def start(self) -> None:
        """Nothing was told yet."""
        self.begin_telling()
        self.begin_bonds()
        self._own: dict[tuple[str, str], int] = {}
        self._most = RosterCounts(self.config.friends, self.config.asking, self.config.asked)

    # what others may ask

    @offered
    async def are_friends(self, one: str, other: str) -> bool:
        """Whether two accounts are friends."""
        return (await self.between(one, other)).state == FRIENDS

    @offered
    async def friends_of(self, account: str) -> tuple[str, ...]:
        """All friends of an account."""
        return tuple(await self.server.rosters.following(account))

    @offered
    async def end(self, account: str, peer: str) -> None:
        """End whatever is between two, in the name of the account."""
        await self.do(account, peer, part)

    # what is done

    @offered
    async def ask(self, account: str, peer: str, text: str, lang: str = "", by: str = "") -> Pair:
        """Ask for friendship, or make friends of two who ask each other; the session `by` is answered and not
        told. StanzaError.
        """
        try:
            await self._check_ask(account, peer)
            text = await self._said(account, text, lang, by)
            pair = await self._askable(account, peer)
            await self._permit(account, peer, "subscribe")
        except StanzaError:
            self.refused.inc()
            raise
        deed = request(text[: self.config.text_characters], self.config.request_days * DAY)
        return await self.do(account, peer, deed, by, pair, self._most)

    async def grant(self, account: str, peer: str, deed: Deed = accept, by: str = "") -> Pair:
        """Accept a request; StanzaError item-not-found without one."""
        pair = self.recalled(account, peer)
        if pair.state != ASKED or pair.by != peer or not await _passes(self._check_friends(account, peer)):
            pair = await self.between(account, peer)
            if pair.state == ASKED and pair.by == peer:
                await self._check_friends(account, peer)
        if pair.state == ASKED and pair.by == peer:
            await self._permit(account, peer, "subscribed")
        return await self.do(account, peer, deed, by, pair, self._most)

    async def _askable(self, account: str, peer: str) -> Pair:
        """What is between who asks and whom, by what is recalled where nothing is in the way; StanzaError."""
        pair = self.recalled(account, peer)
        if pair.version and pair.state == NONE and await _passes(self._check_room(account, peer)):
            return pair
        pair = await self.between(account, peer)
        if pair.state == NONE:
            await self._check_room(account, peer)
        elif pair.state == ASKED and pair.by == peer:
            await self._check_friends(account, peer)
        return pair

    async def do(
        self,
        account: str,
        peer: str,
        deed: Deed,
        by: str = "",
        seen: Pair | None = None,
        most: RosterCounts | None = None,
    ) -> Pair:
        """Do something, tell of it, and see to it that a block that came meanwhile wins; `seen` and `most` as
        in `act`. It is done under the addresses that the two have now.
        """
        async with self.server.writing_both(account, peer) as now:
            return await self._perform(*now, deed, by, seen if now == (account, peer) else None, most)

    async def _perform(
        self,
        account: str,
        peer: str,
        deed: Deed,
        by: str = "",
        seen: Pair | None = None,
        most: RosterCounts | None = None,
    ) -> Pair:
        """The same of two who stay what they are."""
        async with self.foreseeing(account, peer) as foresee:
            before, after = await self.act(account, peer, deed, by=by, seen=seen, most=most, foresee=foresee)
            if after.state != NONE and await self.is_barred(account, peer):
                _, after = await self.act(account, peer, part)
            await self.follow_up(account, peer, before, after)
        return after

    async def is_barred(self, account: str, peer: str) -> bool:
        """Whether one of two has blocked the other."""
        blocks = self.server.blocks
        return await blocks.bars(account, peer) or await blocks.bars(peer, account)

    async def _check_ask(self, account: str, peer: str) -> None:
        """StanzaError for a request that may not be made at all."""
        if account == peer:
            raise StanzaError("bad-request", "Nobody is a friend of his own.")
        if not await self.server.account_exists(account):
            raise StanzaError("not-allowed", "A guest has no friends.")
        if not await self.server.account_exists(peer) or await self.server.blocks.bars(peer, account):
            raise StanzaError("item-not-found", "There is no such player.")
        if await self.server.blocks.bars(account, peer):
            raise StanzaError("not-acceptable", "You have blocked this player.")

    async def _said(self, account: str, text: str, lang: str, by: str) -> str:
        """The text of a request as it may be said; StanzaError for who asks too often, or may say nothing.
        What comes as a presence was counted by moderation itself.
        """
        if not self.moderation:
            return text
        session = self.server.session(by)
        if session is not None and (
            waits := await self.moderation.take(account, "request", session.connection.peer)
        ):
            hint = element(RETRY, {"seconds": str(max(1, math.ceil(waits)))})
            raise StanzaError("policy-violation", "You ask too often.", type="wait", detail=hint)
        return await self.judged(account, text, lang)

    async def judged(self, account: str, text: str, lang: str = "") -> str:
        """A text as moderation leaves it; StanzaError where it may not be said."""
        if not self.moderation:
            return text
        await self.moderation.check_speaks(account, lang)
        verdict = await self.moderation.judge(account, "note", text, lang)
        if verdict.action == "refuse":
            raise StanzaError("not-acceptable", "This may not be said.")
        return "" if verdict.action == "shadow" else str(verdict.text)

    async def _check_room(self, account: str, peer: str) -> None:
        """StanzaError where one has too many friends or requests already. Of several at once those that are
        too many are refused when the rosters are written (`relate`).
        """
        config = self.config
        mine, theirs = await self._counts(account), await self._counts(peer)
        if mine.following >= config.friends:
            raise StanzaError(
                "resource-constraint", f"You have {config.friends} friends, and no room for more."
            )
        if mine.asking >= config.asking:
            raise StanzaError("resource-constraint", "Too many of your requests wait for an answer.")
        if theirs.asked >= config.asked or theirs.following >= config.friends:
            raise StanzaError("resource-constraint", "This player takes no more requests now.")

    async def _counts(self, account: str) -> RosterCounts:
        try:
            return await self.server.rosters.counts(account)
        except AccountUnknown:  # it goes just now
            raise StanzaError("item-not-found", "There is no such player.") from None

    async def _check_friends(self, account: str, peer: str) -> None:
        config = self.config
        if (await self._counts(account)).following >= config.friends:
            raise StanzaError(
                "resource-constraint", f"You have {config.friends} friends, and no room for more."
            )
        if (await self._counts(peer)).following >= config.friends:
            raise StanzaError("resource-constraint", "This player has no room for more friends.")

    async def _permit(self, account: str, peer: str, kind: Any) -> None:
        """Ask other plugins, too."""
        pair = account, peer
        self._own[pair] = self._own.get(pair, 0) + 1
        try:
            await self.server.rosters.permit(account, peer, kind)
        finally:
            left = self._own.pop(pair) - 1
            if left:
                self._own[pair] = left

    @hooks.subscription
    def check_way(self, account: str, contact: str, kind: str) -> None:
        """Whoever befriends two accounts otherwise would make a second truth."""
        is_ours = contact.rpartition("@")[2] in self.server.domains
        if is_ours and (account, contact) not in self._own:
            raise StanzaError("not-allowed", "Friends are made by the plugin friends here (friend befriend).")

    # requests of game clients

    @iq_set(f"{{{NS}}}request", SELF)
    async def take_request(self, request: Request) -> Element:
        """Ask a player, by `jid` or `name`."""
        session, payload = request.session, request.payload
        peer = await self.wanted(session, payload)
        text = " ".join((payload.text or "").split())
        if len(text) > self.config.text_characters:
            raise StanzaError("not-acceptable", f"Say it in {self.config.text_characters} characters.")
        pair = await self.ask(session.account, peer, text, session.lang or "", session.full)
        return await self.shown(pair, session.account)

    @iq_set(f"{{{NS}}}accept", SELF)
    @iq_set(f"{{{NS}}}decline", SELF)
    @iq_set(f"{{{NS}}}cancel", SELF)
    @iq_set(f"{{{NS}}}remove", SELF)
    async def take_act(self, request: Request) -> Element:
        """Accept or decline a request, cancel one's own, end a friendship; item-not-found without one."""
        session, payload = request.session, request.payload
        account = session.account
        peer = await self.peer_of(session, payload)
        name = str(payload.tag).rpartition("}")[2]
        if name == "accept":
            pair = await self.grant(account, peer, by=session.full)
        else:
            pair = await self.do(account, peer, DEEDS[name], session.full)
        return await self.shown(pair, account)

    async def _count_guess(self, session: Session, peer: str) -> None:
        """Who asks for addresses finds out which of them are accounts: no more often than by names, where
        players have names; StanzaError.
        """
        if self.players:
            await self.players.look_up(session, peer)

    @offered
    async def wanted(self, session: Session, payload: Element) -> str:
        """Whom a session asks for, by `jid` or `name` of an element: guesses are counted. StanzaError."""
        peer = await self.peer_of(session, payload)
        if payload.get("jid"):
            await self._count_guess(session, peer)
        return peer

    @offered
    async def peer_of(self, session: Session, payload: Element) -> str:
        """Whom a request names, by `jid` or `name`; StanzaError."""
        if session.is_anonymous:
            raise StanzaError("not-allowed", "A guest has no friends.")
        if jid := payload.get("jid"):
            try:
                peer = Jid.parse(jid)
            except JidError as error:
                raise StanzaError("jid-malformed", str(error)) from None
            if not peer.local or peer.domain not in self.server.domains:
                raise StanzaError("item-not-found", "There is no such player.")
            return peer.bare
        name = payload.get("name")
        if not name:
            raise StanzaError("bad-request", "Name a player by jid or name.")
        if not self.players:
            raise StanzaError("feature-not-implemented", "Players have no names here.")
        account = await self.players.look_up(session, name)
        if account is None:
            raise StanzaError("item-not-found", "There is no such player.")
        return account

    # standard clients

    @hooks.presence_sent.at(hooks.FILTER, hooks.LAST)
    def take_subscription(
        self, session: Session, presence: Stanza
    ) -> Stanza | Coroutine[Any, Any, Stanza | hooks.Drop]:
        """Subscriptions between accounts are friendship, and nothing between."""
        if presence.type not in SUBSCRIPTIONS or session.is_anonymous:
            return presence
        try:
            to = Jid.parse(presence.to or "")
        except JidError:
            return presence  # it is refused
        if not to.local or to.domain not in self.server.domains or to.bare == session.account:
            return presence
        return self._subscribe(session, to.bare, presence)

    async def _subscribe(self, session: Session, peer: str, presence: Stanza) -> hooks.Drop:
        account, kind = session.account, presence.type
        if kind == "subscribe":
            await self._count_guess(session, peer)
            text = " ".join((presence.xml.findtext(STATUS) or "").split())[: self.config.text_characters]
            await self.ask(account, peer, text, session.lang or "")
        elif kind == "subscribed":
            await self.grant(account, peer, grant)
        else:
            await self.do(account, peer, part)
        return hooks.DROP

    @hooks.iq_sent.at(hooks.FILTER)
    def take_removal(self, session: Session, iq: Stanza) -> Stanza | Coroutine[Any, Any, Stanza | hooks.Drop]:
        """To remove a contact ends the friendship, or what was asked."""
        if iq.type != "set" or iq.payload != ROSTER or b"remove" not in iq.raw or session.is_anonymous:
            return iq
        items = iq.xml[0].findall(ITEM)
        if len(items) != 1 or len(iq.xml[0]) != 1 or items[0].get("subscription") != "remove":
            return iq
        try:
            contact = Jid.parse(items[0].get("jid", "")).full
            is_own = Jid.parse(iq.to or session.account).full == session.account
        except JidError:
            return iq
        local, _, domain = contact.rpartition("@")
        is_theirs = local and domain in self.server.domains and contact != session.account
        return self._remove(session, contact, iq) if is_own and is_theirs else iq

    async def _remove(self, session: Session, contact: str, iq: Stanza) -> hooks.Drop:
        async with self.server.writing_both(session.account, contact) as (account, peer):
            await self._remove_item(account, peer)
        attrs = {"type": "result", "to": session.full}
        if iq.id is not None:
            attrs["id"] = iq.id
        session.send(serialize(element(f"{{{ns.CLIENT}}}iq", attrs)))
        return hooks.DROP

    async def _remove_item(self, account: str, contact: str) -> None:
        if not await self.server.account_exists(account):  # it is being removed
            raise StanzaError("not-allowed", "There is no account that could keep contacts.")
        pair = await self.between(account, contact)
        item = await self.server.rosters.item(account, contact)
        if pair.state == NONE and (item is not None or not pair.version):
            await self.server.rosters.remove_item(account, contact)  # an item and no more, or nothing
            pair = await self.between(account, contact)  # they may have become friends meanwhile
        if pair.state != NONE:
            await self._perform(account, contact, part)

    # blocks

    @hooks.blocks_changed
    async def heed_block(self, account: str, change: BlockChange) -> None:
        """Who is blocked is no friend, and asks for nothing."""
        for address in change.blocked:
            peer = Jid.parse(address)
            is_player = peer.local and not peer.resource and peer.domain in self.server.domains
            if is_player and (await self.between(account, peer.bare)).state != NONE:
                await self.do(account, peer.bare, part)

    # accounts that go

    @hooks.account_removed
    async def forget(self, account: str) -> None:
        """Nobody is a friend of whoever takes the name next."""
        for row in await self.cards_of(account):
            await self.drop(account, row["friend"])
        await self.cards.delete(account)
        await self.groups.delete(account)
        await self.unmeet(account)

    async def drop(self, account: str, friend: str) -> None:
        """One of a pair is gone, and so is the pair."""
        pair = await self.between(account, friend)
        if pair.version:
            await self.pairs.delete_if(pair.one, pair.other, expect={"version": pair.version})
        await self.cards.delete(friend, account)
        await self.tell(part(pair, account, self.now()))

    @hooks.account_moved
    async def move(self, old: str, new: str) -> None:
        """Friends follow; on all nodes at once, so a repeat is harmless."""
        for row in await self.cards_of(new):
            friend = row["friend"]
            theirs = await self.cards.get(friend, old)
            if theirs is not None:
                await self.cards.put({**theirs, "friend": new})
                await self.cards.delete(friend, old)
            await self.rename_pair(old, new, friend)
            if (await self.between(new, friend)).state == NONE:  # it ended while the rows were on their way
                await self.cards.delete(new, friend)
                await self.cards.delete(friend, new)
            await self.tell_moved(old, new, friend)
        await self.meet_as(old, new)


async def _passes(check: Coroutine[Any, Any, None]) -> bool:
    """Whether a check raises no StanzaError."""
    try:
        await check
    except StanzaError:
        return False
    return True
