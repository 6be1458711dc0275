"""The list of friends as the dialect has it, its pushes, and what is asked of others by it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from xmppd import hooks, ns
from xmppd.plugin import (
    Element,
    Lru,
    RosterChange,
    RosterItem,
    Session,
    SessionSlot,
    StanzaError,
    cluster_signal,
    element,
    serialize,
)

if TYPE_CHECKING:
    from . import RiotProfile

IQ: Final = f"{{{ns.CLIENT}}}iq"
SUBSCRIPTIONS: Final = {"asking": "pending_out", "asked": "pending_in", "both": "both"}
REMOVE: Final = "remove"
REMEMBERED: Final = 10_000
"""Of so many items it is known which version was told last."""


class Entry(Protocol):
    """One line of a list, of the plugin `friends`."""

    @property
    def pair(self) -> Any: ...

    @property
    def name(self) -> str: ...

    @property
    def groups(self) -> tuple[str, ...]: ...

    @property
    def note(self) -> str: ...


class FriendsOf(Protocol):
    """What is asked of the plugin `friends`."""

    def __bool__(self) -> bool: ...

    async def entries_of(self, account: str) -> Sequence[Entry]: ...

    async def groups_of(self, account: str) -> dict[str, int]: ...

    async def seen(self, contact: str, viewer: str) -> tuple[bool, float]: ...

    async def wanted(self, session: Session, payload: Element) -> str: ...

    async def peer_of(self, session: Session, payload: Element) -> str: ...

    async def ask(self, account: str, peer: str, text: str, lang: str = "", by: str = "") -> Any: ...

    async def end(self, account: str, peer: str) -> None: ...


class Rosters:
    """Reads, pushes and changes the list; all that holds of friends is the matter of `friends`."""

    lists = SessionSlot(False)
    """Whether a session asked for the list, and is told of changes."""

    @property
    def _it(self) -> RiotProfile:
        return cast("RiotProfile", self)

    def begin_pushing(self) -> None:
        """Nothing was pushed yet."""
        self._pushes = 0
        self._told: Lru[str, int] = Lru(REMEMBERED)

    async def show_roster(self, session: Session, query: Element) -> list[Element]:
        """All friends and requests. What friends are doing, and since when they are away, is told to who asks
        for it by `last_state`, or did once for all.
        """
        profile, account = self._it, session.account
        self.lists[session] = True
        last = query.get("last_state") == "true" or profile.last_online[session]
        priorities = await profile.friends.groups_of(account)
        entries = await profile.friends.entries_of(account)
        items = [await self._item(account, entry, priorities, last=last) for entry in entries]
        return [element(query.tag, None, *items)]

    async def _item(self, account: str, entry: Entry, priorities: dict[str, int], *, last: bool) -> Element:
        profile = self._it
        contact = entry.pair.of(account)
        subscription = SUBSCRIPTIONS.get(entry.pair.seen_by(account), REMOVE)
        item = self._head(contact, subscription, entry.name)
        for group in entry.groups or (profile.config.default_group,):
            item.append(profile.named("roster", "group", {"priority": str(priorities.get(group, 0))}, group))
        if subscription != "both":
            return item
        if entry.note:
            item.append(profile.named("roster", "note", None, entry.note))
        if last:
            is_online, since = await profile.friends.seen(contact, account)
            item.append(profile.named("roster", "state", None, "online" if is_online else "offline"))
            if since:
                item.append(profile.named("roster", "last_online", None, moment(since)))
        return item

    def _head(self, contact: str, subscription: str, name: str) -> Element:
        """An item with whom it is about; names are known of who has one."""
        profile = self._it
        attrs = {"jid": contact, "puuid": contact.partition("@")[0], "subscription": subscription}
        shown, hash_, tag = name.rpartition("#")
        if not hash_:
            return profile.named("roster", "item", attrs)
        ids = {"name": shown, "tagline": tag}
        platform = profile.named("roster", profile.config.platform, ids)
        return profile.named(
            "roster",
            "item",
            attrs | {"name": shown},
            profile.named("roster", "id", ids),
            profile.named("roster", "lol", {"name": shown}),
            profile.named("roster", "platforms", None, platform),
        )

    # pushes

    @hooks.roster_changed
    async def push_change(self, account: str, change: RosterChange) -> None:
        """Tell the clients that speak the dialect, on whatever node."""
        old, new = subscription_of(change.old), subscription_of(change.new)
        groups = change.new.groups if change.new is not None else ()
        if old == new and (change.old is None or change.old.groups == groups):
            return
        self.changed.tell(account, change.contact, change.version, new or REMOVE)

    @cluster_signal
    def changed(self, account: str, contact: str, version: int, subscription: str) -> None:
        """Push an item to the sessions here that asked for the list, none after a newer one."""
        key = f"{account} {contact}"
        if (self._told.get(key) or 0) >= version:
            return
        self._told.put(key, version)
        if any(self.lists[it] for it in self._it.server.sessions(account)):
            self._it.spawn(self._push(account, contact, version, subscription))

    async def _push(self, account: str, contact: str, version: int, subscription: str) -> None:
        profile = self._it
        if subscription == REMOVE:
            item = self._head(contact, REMOVE, "")
        else:
            entries = await profile.friends.entries_of(account)
            priorities = await profile.friends.groups_of(account)
            entry = next((it for it in entries if it.pair.of(account) == contact), None)
            if entry is None or SUBSCRIPTIONS.get(entry.pair.seen_by(account)) != subscription:
                return  # it changes once more, and is pushed then
            item = await self._item(account, entry, priorities, last=False)
        if (self._told.get(f"{account} {contact}") or 0) != version:
            return
        for session in profile.server.sessions(account):
            if self.lists[session]:
                self._pushes += 1
                attrs = {"type": "set", "id": f"push_{self._pushes}", "to": session.full}
                tree = profile.named("roster", "query", None, item)
                session.send(serialize(element(IQ, attrs, tree)))

    # requests

    async def change_roster(self, session: Session, query: Element) -> list[Element]:
        """Ask a player, accept who asked by asking back, or end what is between the two."""
        profile, account = self._it, session.account
        items = [it for it in query if local(it) == "item"]
        if len(items) != 1 or len(query) != 1:
            raise StanzaError("bad-request", "Change one item at a time.")
        [item] = items
        subscription = item.get("subscription")
        if subscription not in ("pending_out", REMOVE):
            raise StanzaError("bad-request", "A subscription is set to pending_out or to remove.")
        who = self._named_by(session, item)
        if subscription == REMOVE:
            await profile.friends.end(account, await profile.friends.peer_of(session, who))
        else:
            peer = await profile.friends.wanted(session, who)
            await profile.friends.ask(account, peer, "", session.lang or "", session.full)
        return []

    def _named_by(self, session: Session, item: Element) -> Element:
        """Whom an item is about, as `friends` is asked: by `jid`, `puuid`, or a name with its tag."""
        if jid := item.get("jid"):
            return element("player", {"jid": jid})
        if puuid := item.get("puuid"):
            if "@" in puuid or "/" in puuid:
                raise StanzaError("jid-malformed")
            return element("player", {"jid": f"{puuid}@{session.account.rpartition('@')[2]}"})
        for child in item:
            if local(child) == "id" and child.get("name") and child.get("tagline"):
                return element("player", {"name": f"{child.get('name')}#{child.get('tagline')}"})
            if local(child) == "lol" and "#" in child.get("name", ""):
                return element("player", {"name": child.get("name", "")})
        raise StanzaError("bad-request", "Name a player by jid, puuid, or name and tagline.")


def subscription_of(item: RosterItem | None) -> str:
    """What is between two, of an item: pending_out, pending_in, both, or ""."""
    if item is None:
        return ""
    if item.subscription == "both":
        return "both"
    return "pending_out" if item.ask else "pending_in" if item.pending_in else ""


def local(tree: Element) -> str:
    """The name of an element without its namespace."""
    return str(tree.tag).rpartition("}")[2]


def moment(at: float) -> str:
    """A moment as the dialect has it, in UTC: `YYYY-MM-DD HH:MM:SS.mmm`."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
