"""Tells players and back ends what is between two."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, cast

from xmppd import ns
from xmppd.plugin import (
    Element,
    Emitter,
    EventField,
    Intent,
    Lru,
    cluster_signal,
    element,
    happened,
    serialize,
    utc_stamp,
)

from .pairs import ASKED, FRIENDS, NONE, Pair, pair_of

if TYPE_CHECKING:
    from . import Friends

NS: Final = "urn:xmppd:friends:0"
FRIEND: Final = f"{{{NS}}}friend"
FRIENDS_LIST: Final = f"{{{NS}}}friends"
IQ: Final = f"{{{ns.CLIENT}}}iq"
Foresee = Callable[[Pair, Pair, int], Awaitable[None]]
"""(before, after, version): a pair that has this version is about to be changed so; StoreError."""
REMEMBERED: Final = 10_000
"""Of so many pairs it is known how they were told last, so that no older one is told then."""


class Telling:
    """Pushes to clients that asked for the list, and events."""

    requested = Emitter(
        "friend.requested",
        "A player asked another one to be his friend.",
        fields={"to": EventField("text", "whom"), "text": EventField("text", "what he said")},
        example={"to": "bob@example.org", "text": "Good game!"},
    )
    befriended = Emitter(
        "friend.made",
        "Two players are friends.",
        fields={"friend": EventField("text", "the other one"), "by": EventField("text", "who did it last")},
        example={"friend": "bob@example.org", "by": "bob@example.org"},
        key=("friend",),
    )
    parted = Emitter(
        "friend.ended",
        "Two players are friends no more, or a request was declined, cancelled, or has expired.",
        fields={
            "friend": EventField("text", "the other one"),
            "by": EventField("text", "who did it"),
            "was": EventField("text", "`friends` or `asked`"),
        },
        example={"friend": "bob@example.org", "by": "bob@example.org", "was": "friends"},
        key=("friend",),
    )

    @property
    def _friends(self) -> Friends:
        return cast("Friends", self)

    def begin_telling(self) -> None:
        """Nothing was told yet."""
        self._pushes = itertools.count(1)
        self._told: Lru[str, Pair] = Lru(REMEMBERED)

    def recalled(self, one: str, other: str) -> Pair:
        """What was between two when this node heard of it last; nothing where it never did. Who acts by it
        finds out whether it is so.
        """
        first, second = sorted((one, other))
        told = self._told.get(f"{first} {second}")
        return Pair(first, second) if told is None else told.at(self._friends.now())

    async def follow_up(self, doer: str, peer: str, before: Pair, after: Pair) -> None:
        """Count it, and tell who listens to events."""
        friends = self._friends
        if before.state == after.state:
            return
        if after.state == ASKED:
            friends.asked.inc()
        elif after.state == FRIENDS:
            friends.made.inc()
        elif before.state == FRIENDS:
            friends.ended.inc()
        emitter, account, data = self.told_of(doer, peer, before, after)
        await emitter.emit(account, **data)

    def told_of(self, doer: str, peer: str, before: Pair, after: Pair) -> tuple[Emitter, str, dict[str, str]]:
        """Which event it is, and of whom."""
        if after.state == ASKED:
            return self.requested, doer, {"to": peer, "text": after.text}
        if after.state == FRIENDS:
            return self.befriended, peer, {"friend": doer, "by": doer}
        return self.parted, peer, {"friend": doer, "by": doer, "was": before.state}

    @asynccontextmanager
    async def foreseeing(self, doer: str, peer: str) -> AsyncIterator[Foresee]:
        """Around a deed and the telling of it: what is to be done before each attempt, so that it is told
        after a kill, too.
        """
        intent: Intent | None = None

        async def foresee(before: Pair, after: Pair, version: int) -> None:
            nonlocal intent
            if intent is not None:
                intent.drop()
                intent = None
            if before.state != after.state:
                emitter, account, data = self.told_of(doer, peer, before, after)
                intent = emitter.intent(account, **data)
            if intent is not None:
                await intent.begin({"before": version})

        try:
            yield foresee
        except BaseException:
            if intent is not None:
                intent.doubt()
            raise
        if intent is not None:
            intent.drop()

    @happened("friend.requested", "friend.made", "friend.ended")
    async def was_done(self, account: str, data: Mapping[str, Any], about: Mapping[str, Any]) -> bool:
        """Whether a pair has been changed that was about to be when this was killed: it has another version
        now, or is past.
        """
        one, other = sorted((account, data.get("to") or data["friend"]))
        row = await self._friends.pairs.get(one, other)
        version = 0 if row is None else row["version"]
        return bool(version not in (0, about["before"]))

    async def tell(self, pair: Pair, by: str = "") -> Pair:
        """Let clients of both, on all nodes, see how a pair stands, but for the session `by`; the same with
        the names of both.
        """
        names = await self.names_of([pair.one, pair.other])
        self.changed.tell(pair.one, pair.other, pair.version, said_of(pair), names, by)
        return replace(pair, names=names)

    async def tell_moved(self, old: str, new: str, friend: str) -> None:
        """The same to clients on this node alone, of a pair whose one account has another address."""
        names, pair = await self.names_of([new, friend]), await self._friends.between(new, friend)
        for it in (replace(pair_of(old, friend, None), version=pair.version), pair):
            self.changed(it.one, it.other, it.version, said_of(it), names, "")

    @cluster_signal
    def changed(
        self, one: str, other: str, version: int, said: dict[str, Any], names: dict[str, str], by: str
    ) -> None:
        """Push it to the sessions of both here that asked for the list."""
        friends = self._friends
        key = f"{one} {other}"
        told = self._told.get(key)
        if told is not None and told.version > version:
            return
        pair = Pair(one, other, version=version, **said)
        self._told.put(key, pair)
        for account in (one, other):
            sessions = friends.server.sessions(account)
            listening = [it for it in sessions if friends.is_listening[it] and it.full != by]
            if not listening:
                continue
            tree = element(FRIENDS_LIST, None, self.item(pair, account, names.get(pair.of(account), "")))
            for session in listening:
                attrs = {"type": "set", "id": f"friends{next(self._pushes)}", "to": session.full}
                session.send(serialize(element(IQ, attrs, tree)))

    async def names_of(self, accounts: list[str]) -> dict[str, str]:
        """The names of players, where they have any."""
        players = self._friends.players
        return await players.names_of(accounts) if players else {}

    async def shown(self, pair: Pair, account: str) -> Element:
        """A pair as one of them sees it."""
        peer = pair.of(account)
        names = await self.names_of([peer]) if pair.names is None else pair.names
        return self.item(pair, account, names.get(peer, ""))

    def item(self, pair: Pair, account: str, name: str, *more: Element, **attributes: str) -> Element:
        """The same with what else is said of it."""
        state = {"both": "friend"}.get(pair.seen_by(account), pair.seen_by(account))
        attrs = {"jid": pair.of(account), "state": state}
        if name:
            attrs["name"] = name
        if pair.state == FRIENDS and pair.since is not None:
            attrs["since"] = utc_stamp(pair.since)
        if pair.state == ASKED and pair.expires is not None:
            attrs["expires"] = utc_stamp(pair.expires)
        said = [element(f"{{{NS}}}text", None, pair.text)] if pair.state != NONE and pair.text else []
        return element(FRIEND, attrs | attributes, *said, *more)


def said_of(pair: Pair) -> dict[str, Any]:
    """What nodes tell each other of a pair."""
    said: dict[str, Any] = {"state": pair.state, "by": pair.by, "text": pair.text}
    return said | {"since": pair.since, "expires": pair.expires}
