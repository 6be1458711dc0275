"""Invites to a game, a match or a party: made, answered, taken back or over, in one state at a time that all
see alike, and signed by the server (docs/game-protocol.md).
"""

from __future__ import annotations

import asyncio
import math
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final, Protocol

from xmppd import hooks, ns
from xmppd.plugin import (
    SELF,
    AccountUnknown,
    BlockChange,
    Counter,
    Element,
    Emitter,
    EventField,
    Jid,
    JidError,
    Person,
    Request,
    Session,
    SessionSlot,
    StanzaError,
    StoreError,
    Table,
    Uses,
    cluster_signal,
    element,
    happened,
    iq_get,
    iq_set,
    serialize,
)

from .adding import add
from .commands import InviteCommands
from .config import InvitesConfig
from .paying import Paying, too_often
from .states import (
    ACCEPTED,
    CANCELLED,
    COLUMNS,
    DECLINED,
    EXPIRED,
    KINDS,
    PENDING,
    Invite,
    claims_of,
    invite_of,
    row_of,
    signed,
    values_of,
)

NS: Final = "urn:xmppd:invites:0"
INVITE: Final = f"{{{NS}}}invite"
INVITES: Final = f"{{{NS}}}invites"
ANSWERS: Final = {f"{{{NS}}}accept": ACCEPTED, f"{{{NS}}}decline": DECLINED}
CANCEL: Final = f"{{{NS}}}cancel"
PAYLOAD: Final = f"{{{NS}}}payload"
TOKEN: Final = f"{{{NS}}}token"
IQ: Final = f"{{{ns.CLIENT}}}iq"
CHARACTERS: Final = 200
"""Of the id of a game, a match or a party."""


class Friends(Protocol):
    """What is asked of the plugin `friends`."""

    def __bool__(self) -> bool:
        """Whether it is there."""

    async def are_friends(self, one: str, other: str) -> bool:
        """Whether they are."""


class Judgement(Protocol):
    """What is made of a text."""

    action: str
    text: str
    why: str


class Moderation(Protocol):
    """What is asked of the plugin `moderation`."""

    def __bool__(self) -> bool:
        """Whether it is there."""

    async def check_speaks(self, account: str, lang: str = "") -> None:
        """StanzaError for who is muted."""

    async def judge(self, account: str, where: str, text: str) -> Judgement:
        """What becomes of a text."""

    async def take(self, account: str, verb: str, peer: str) -> float:
        """In how many seconds an account, at an address, may do so, 0: now."""


class Invites(InviteCommands, Paying):
    """Keeps each invite with who gets it, whose row decides; who made it has one that says where that is."""

    Config = InvitesConfig
    features = (NS,)

    friends: Uses[Friends] = Uses("friends")
    moderation: Uses[Moderation] = Uses("moderation")
    got = Table(
        partition=("account",),
        cluster=("id",),
        columns=COLUMNS,
        static={"mark": "int"},
        person=Person("account", mentions={"peer": "deleted"}),
    )
    made = Table(
        partition=("account",),
        cluster=("id",),
        columns={"peer": "text", "expires": "timestamp"},
        static={"mark": "int"},
        person=Person("account", mentions={"peer": "deleted"}),
    )
    is_told = SessionSlot(False)
    """Whether a session asked for invites, and is told of them from then on."""
    sent = Counter("Invites that were made.")
    answered = Counter("Invites that were accepted, declined, cancelled or expired.")
    was_made = Emitter(
        "invite.made",
        "An account was invited.",
        fields={
            "id": EventField("text", "of the invite"),
            "to": EventField("text", "who is invited"),
            "kind": EventField("text", "game, match or party"),
            "target": EventField("text", "the id of that"),
            "game": EventField("text", "which game it is about"),
        },
        example={"id": "7f", "to": "bob@example.org", "kind": "match", "target": "m-17", "game": "chess"},
    )
    was_settled = Emitter(
        "invite.settled",
        "An invite was accepted, declined, cancelled or expired.",
        fields={
            "id": EventField("text", "of the invite"),
            "to": EventField("text", "who was invited"),
            "kind": EventField("text", "game, match or party"),
            "target": EventField("text", "the id of that"),
            "state": EventField("text", "accepted, declined, cancelled or expired"),
        },
        example={"id": "7f", "to": "bob@example.org", "kind": "match", "target": "m-17", "state": "accepted"},
    )

    async def start(self) -> None:
        """See to the end of those that sessions here know of."""
        await super().start()
        self._due: set[str] = set()
        self._pushes = 0
        self.spawn(self._begin_again())

    async def _begin_again(self) -> None:
        for account in {session.account for session in self.server.online() if self.is_told[session]}:
            for one in (*await self.made_by(account), *await self.got_by(account)):
                self._watch(one)

    # what clients ask

    @iq_set(INVITE, SELF)
    async def invite(self, request: Request) -> Element:
        """Invite somebody. The same invite once more is the one that there is."""
        session, tree = request.session, request.payload
        self.pay(session.account)
        try:
            async with self.server.writing(session.account, session) as exists:
                if not exists:
                    raise StanzaError("not-allowed", "An anonymous session invites nobody.")
                wanted = self._wanted(session.account, tree)
                wanted = await self._judged(wanted, session)
                made = await self.make(session.account, wanted)
        except StanzaError:
            self.refused.inc()
            raise
        return self._shown(made)

    @iq_get(INVITES, SELF)
    async def list_all(self, request: Request) -> Element:
        """Those that are pending, made and got; from now on the session is told of what becomes of them."""
        session = request.session
        self.is_told[session] = True
        made, got = await self.made_by(session.account), await self.got_by(session.account)
        pending = [one for one in (*made, *got) if one.state == PENDING]
        for one in pending:
            self._watch(one)
        return element(INVITES, None, *map(self._shown, pending))

    @iq_set(f"{{{NS}}}accept", SELF)
    async def accept(self, request: Request) -> Element:
        """The one who is invited comes."""
        return await self._answer(request)

    @iq_set(f"{{{NS}}}decline", SELF)
    async def decline(self, request: Request) -> Element:
        """He does not."""
        return await self._answer(request)

    async def _answer(self, request: Request) -> Element:
        session, id = request.session, request.payload.get("id", "")
        async with self.server.writing(session.account, session) as exists:
            if not exists:
                raise missing()
            one = await self.settled(await self.found(session.account, id), ANSWERS[request.payload.tag])
        return self._shown(one)

    @iq_set(CANCEL, SELF)
    async def cancel(self, request: Request) -> Element:
        """Who made it takes it back."""
        account, id = request.session.account, request.payload.get("id", "")
        row = await self.made.get(account, id) if id else None
        if row is None:
            raise missing()
        async with self.server.writing_both(account, row["peer"]) as (_, to):
            return self._shown(await self.settled(await self.found(to, id), CANCELLED))

    # making one

    def _wanted(self, account: str, tree: Element) -> Invite:
        """What a client says; StanzaError."""
        try:
            to = Jid.parse(tree.get("to", "")).bare
        except JidError as error:
            raise StanzaError("jid-malformed", str(error)) from None
        seconds = tree.get("seconds", "")
        if seconds and not (seconds.isascii() and seconds.isdigit() and len(seconds) < 9):
            raise StanzaError("bad-request", "Seconds are a whole number.")
        try:
            return self.made_of(
                account,
                to,
                tree.get("kind", "game"),
                tree.get("target", ""),
                tree.get("game", ""),
                tree.findtext(PAYLOAD) or "",
                float(seconds or self.config.seconds),
            )
        except ValueError as error:
            raise StanzaError("bad-request", str(error)) from None

    def made_of(
        self, sender: str, to: str, kind: str, target: str, game: str, payload: str, seconds: float
    ) -> Invite:
        """A new one; ValueError for what it cannot be."""
        if kind not in KINDS:
            raise ValueError(f"An invite is to a {', '.join(KINDS)}.")
        if not target or len(target) > CHARACTERS or len(game) > CHARACTERS:
            raise ValueError(f"Say what it is to, in {CHARACTERS} characters at most.")
        if len(payload.encode(errors="replace")) > self.config.payload_bytes:
            raise ValueError(f"What comes with it has {self.config.payload_bytes} bytes at most.")
        if not 1 <= seconds <= self.config.seconds_most:
            raise ValueError(f"It lives from 1 to {self.config.seconds_most:.0f} seconds.")
        if to == sender:
            raise ValueError("Nobody invites himself.")
        now = self.now()
        return Invite(secrets.token_hex(12), sender, to, kind, target, game, payload, now, now + seconds)

    async def make(self, account: str, wanted: Invite, *, by_operator: bool = False) -> Invite:
        """Keep a new one and tell both, or find the one that is the same; StanzaError. Who is refused is told
        the same of all whom he may not invite, whether they are there or not.
        """
        to = wanted.to
        if not by_operator:
            await self._permit(account, to)
        told = {name: getattr(wanted, name) for name in self.was_made.kind.fields}
        async with self.was_made.around(wanted.sender, **told):
            if (same := await self._kept(account, wanted)) is not None:
                return same
            self.sent.inc()
            await self.was_made.emit(wanted.sender, **told)
        self.changed.tell(values_of(wanted))
        self._watch(wanted)
        self._write_to(wanted)
        return wanted

    async def _kept(self, account: str, wanted: Invite) -> Invite | None:
        """Write it down with both, who made it first; None, or the one that is there already. StanzaError
        where either has too many: what a kill leaves with one alone is nobody's, and counts until its time is
        over.
        """
        to, life, same = wanted.to, self._life(wanted.expires), list[Invite]()

        async def may_make(rows: Sequence[Mapping[str, Any]]) -> bool:
            live = [row for row in rows if row["expires"] > self.now()]
            ended = [one for one in await self._invites_of(live) if one.state != PENDING]
            if len(live) >= min(self.config.pending + len(ended), 2 * self.config.pending):
                raise StanzaError("resource-constraint", "Too many of your invites are pending.")
            return True

        async def may_get(rows: Sequence[Mapping[str, Any]]) -> bool:
            got = [one for row in rows if (one := invite_of(row).at_time(self.now())).state == PENDING]
            same.extend(one for one in got if one.is_same(wanted))
            if not same and len(got) >= self.config.pending:
                raise StanzaError("resource-constraint", "Too many invites are pending.")
            return not same

        async with self.server.writing(to) as exists:
            if not exists:
                raise unavailable()
            if not await may_get((await self.got.scan(to)).rows):
                return same[0]
            mine = {"id": wanted.id, "peer": to, "expires": wanted.expires}
            await add(self.made, account, mine, life, may_make)
            theirs = {name: value for name, value in row_of(wanted).items() if name != "account"}
            try:
                is_added = await add(self.got, to, theirs, life, may_get)
            except StanzaError:
                await self.made.delete_if(account, wanted.id, expect={"peer": to})
                raise
            if not is_added:
                await self.made.delete_if(account, wanted.id, expect={"peer": to})
        return None if is_added else same[0]

    async def _judged(self, wanted: Invite, session: Session) -> Invite:
        """As the plugin `moderation` leaves it, if there is one; StanzaError."""
        if not self.moderation:
            return wanted
        await self.moderation.check_speaks(wanted.sender, session.lang or "")
        seconds = await self.moderation.take(wanted.sender, "invite", session.connection.peer)
        if seconds > 0:
            raise too_often(seconds)
        # Of what it is to nothing can be masked: it would be to something else.
        judgement = await self.moderation.judge(wanted.sender, "invite", f"{wanted.game}\n{wanted.target}")
        if judgement.action not in ("pass", "flag"):
            raise StanzaError("policy-violation", "This may not be said.")
        judgement = await self.moderation.judge(wanted.sender, "invite", wanted.payload)
        if judgement.action in ("refuse", "shadow"):
            raise StanzaError("policy-violation", "This may not be said.")
        return replace(wanted, payload=judgement.text) if judgement.action == "mask" else wanted

    async def _permit(self, account: str, to: str) -> None:
        """StanzaError where one account may not invite another one."""
        if await self.is_barred(account, to):
            raise unavailable()
        if self.config.senders == "friends" and not await self._are_friends(account, to):
            raise unavailable()
        is_away = not self.server.locate(to) or self.server.appears_offline(to, account)
        if self.config.offline == "refuse" and is_away:
            raise StanzaError("recipient-unavailable", "He is not there.")

    async def is_barred(self, account: str, to: str) -> bool:
        blocks = self.server.blocks
        return await blocks.bars(to, account) or await blocks.bars(account, to)

    async def _are_friends(self, account: str, to: str) -> bool:
        if self.friends:
            return await self.friends.are_friends(account, to)
        with suppress(AccountUnknown):
            item = await self.server.rosters.item(account, to)
            return item is not None and item.subscription == "both"
        return False

    @happened("invite.made", "invite.settled")
    async def was_so(self, account: str, data: Mapping[str, Any], about: Mapping[str, Any]) -> bool:
        """Whether one is there, or ended so, that was about to when this was killed."""
        row = await self.got.get(data["to"], data["id"])
        return row is not None and data.get("state", row["state"]) == row["state"]

    # what becomes of it

    async def found(self, account: str, id: str) -> Invite:
        """One that an account got; StanzaError item-not-found."""
        row = await self.got.get(account, id) if id else None
        if row is None:
            raise missing()
        return invite_of(row).at_time(self.now())

    async def settled(self, one: Invite, state: str) -> Invite:
        """It comes to its end, unless it has come to another one: StanzaError conflict. To say the same once
        more is harmless.
        """
        after = await self._end(one, state)
        if after.state != state:
            raise StanzaError("conflict", f"It is {after.state}.")
        return after

    async def _end(self, one: Invite, state: str) -> Invite:
        """Have it end so if it is pending; how it has ended. One write decides, whoever else answers."""
        if one.state == PENDING:
            ended = one.ended(state)
            told = {name: getattr(ended, name) for name in self.was_settled.kind.fields}
            # No more than that: who made it may just be given another address.
            row = {"account": one.to, "id": one.id, "state": state}
            async with self.was_settled.around(one.sender, **told):
                if await self.got.put_if(row, {"state": PENDING}, ttl=self._life(one.expires)):
                    self.answered.inc()
                    await self.was_settled.emit(one.sender, **told)
                    self.changed.tell(values_of(ended))
                    return ended
        return await self.found(one.to, one.id)

    def _watch(self, one: Invite) -> None:
        """See that it ends when its time is over: every node does that knows it, and one is the first."""
        if one.id not in self._due and one.state == PENDING:
            self._due.add(one.id)
            self.call_later(max(0.0, one.expires - self.now()), self._expire, one)

    async def _expire(self, one: Invite) -> None:
        if one.id not in self._due:
            return  # how it ended was told
        self._due.discard(one.id)
        with suppress(StoreError):  # it is over all the same, and who looks sees that
            row = await self.got.get(one.to, one.id)
            kept = one if row is None else invite_of(row)
            if row is not None and kept.state == PENDING:
                await self._end(kept, EXPIRED)
            else:  # the node that ended it did not come to tell so
                self.changed(values_of(kept.at_time(self.now())))

    @cluster_signal
    def changed(self, values: dict[str, Any]) -> None:
        """Tell the sessions of both, on every node, that an invite is there or how it ended."""
        one = Invite(**values)
        is_there = False
        if one.state != PENDING:
            self._due.discard(one.id)
        for account in (one.sender, one.to):
            for session in self.server.sessions(account):
                if self.is_told[session]:
                    self._push(session, one)
                    is_there = True
        if is_there:
            self._watch(one)

    def _push(self, session: Session, one: Invite) -> None:
        self._pushes += 1
        attrs = {"type": "set", "id": f"invite{self._pushes}", "to": session.full}
        session.send(serialize(element(IQ, attrs, self._shown(one))))

    def _write_to(self, one: Invite) -> None:
        """Tell clients that know no invites by a message, which is kept for who is not there."""
        if self.config.message:
            what, who = one.target if one.kind != "game" else one.game or one.target, one.sender
            text = (
                self.config.message.replace("{who}", who).replace("{kind}", one.kind).replace("{what}", what)
            )
            body = element(f"{{{ns.CLIENT}}}body", None, text)
            attrs = {"type": "chat", "from": one.sender, "to": one.to, "id": one.id}
            message = element(f"{{{ns.CLIENT}}}message", attrs, body, self._shown(one))
            self.spawn(self._send(message))

    async def _send(self, message: Element) -> None:
        with suppress(StanzaError):  # nobody keeps it
            await self.server.send(message)

    # how it is shown

    def _shown(self, one: Invite) -> Element:
        """One as both see it."""
        one = one.at_time(self.now())
        attrs = {
            "id": one.id,
            "from": one.sender,
            "to": one.to,
            "kind": one.kind,
            "target": one.target,
            **({"game": one.game} if one.game else {}),
            "state": one.state,
            "seconds": str(max(0, math.ceil(one.expires - self.now()))),
        }
        children = [element(PAYLOAD, None, one.payload)] if one.payload else []
        if self.config.key is not None:
            claims = claims_of(one, one.to.rpartition("@")[2])
            children.append(element(TOKEN, None, signed(claims, self.config.key.value, self.config.key_id)))
        return element(INVITE, attrs, *children)

    async def got_by(self, account: str) -> list[Invite]:
        rows = (await self.got.scan(account)).rows
        return [invite_of(row).at_time(self.now()) for row in rows]

    async def made_by(self, account: str, *, also_old: bool = False) -> list[Invite]:
        """Those whose time is not over; also the others that are kept."""
        found, now = (await self.made.scan(account)).rows, self.now()
        rows = [row for row in found if also_old or row["expires"] > now]
        return await self._invites_of(rows)

    async def _invites_of(self, rows: Sequence[Mapping[str, Any]]) -> list[Invite]:
        """Those that rows of who made them are of, as far as they are kept."""
        kept = await asyncio.gather(*(self.got.get(row["peer"], row["id"]) for row in rows))
        return [invite_of(row).at_time(self.now()) for row in kept if row is not None]

    # accounts

    @hooks.blocks_changed
    async def part(self, account: str, change: BlockChange) -> None:
        """What is pending between two of whom one has blocked the other is at its end."""
        if not change.blocked:
            return
        for one in (*await self.got_by(account), *await self.made_by(account)):
            peer = one.sender if one.to == account else one.to
            if one.state == PENDING and await self.is_barred(account, peer):
                await self._end(one, DECLINED if one.to == account else CANCELLED)

    @hooks.account_removed
    async def forget(self, account: str) -> None:
        """What it made is taken back; what it got is declined, and nobody's."""
        for one in await self.made_by(account):
            await self._end(one, CANCELLED)
        for one in await self.got_by(account):
            await self._end(one, DECLINED)
            await self.made.delete_if(one.sender, one.id, expect={"peer": account})
        await self.made.delete(account)
        await self.got.delete(account)

    @hooks.account_moved
    async def follow(self, old: str, new: str) -> None:
        """The account has another address, and its rows are there: those of whom it invited, and of who
        invited it, follow. Told on all nodes, so a repeat is harmless.
        """
        for row in (await self.got.scan(new)).rows:
            made = await self.made.get(row["peer"], row["id"])
            if made is not None and made["peer"] == old:
                key = {"account": row["peer"], "id": row["id"]}
                await self.made.put(
                    {**key, "peer": new, "expires": made["expires"]}, ttl=self._life(made["expires"])
                )
        for row in (await self.made.scan(new)).rows:
            key = {"account": row["peer"], "id": row["id"]}
            await self.got.put_if({**key, "peer": new}, {"peer": old}, ttl=self._life(row["expires"]))

    def _life(self, expires: float) -> float:
        """For how many seconds more an invite is kept."""
        return max(1.0, expires - self.now() + self.config.kept_seconds)


def missing() -> StanzaError:
    """There is no such invite, or it is somebody else's."""
    return StanzaError("item-not-found", "There is no such invite.")


def unavailable() -> StanzaError:
    """He cannot be invited, for whatever reason."""
    return StanzaError("service-unavailable", "You cannot invite this account.")
