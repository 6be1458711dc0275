"""What clients and the back end say of games, and how that is shown."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import math
from collections.abc import Awaitable, Iterable, Mapping
from typing import Annotated, Any, Final, NamedTuple

from xmppd import hooks
from xmppd.plugin import (
    ACCOUNT,
    SELF,
    AccountUnknown,
    CommandError,
    Counter,
    Element,
    Emitter,
    EventField,
    Jid,
    Lru,
    Person,
    Plugin,
    Request,
    Session,
    SessionSlot,
    Stanza,
    StanzaError,
    Table,
    begun,
    cluster_signal,
    command,
    element,
    iq_get,
    iq_set,
    utc_stamp,
)

from .config import Game, RichPresenceConfig
from .pace import Pace
from .said import EMPTY, GAME, JOIN, NOTHING, NS, STATE, Part, Sure, annex_of, status_of
from .schema import Mistake, read, written

SECRET_BYTES: Final = 512
RETRY: Final = "{urn:xmppd:moderation:0}retry"
ATTEMPTS: Final = 32
"""To write what several back ends change at once."""
PARTY: Final = 100
"""Members of a party that the back end may name."""
KNOWN: Final = 100_000
"""Of how many accounts and games it is remembered what the back end says."""
LOOK_SECONDS: Final = 3.0
"""For how long other nodes are waited for that are asked what they know of an account."""
MINUTE: Final = 60.0


class Shown:
    """Of one session: what its presence has, what that was when it was shown last, and when it may be shown
    again; `paid_until` is when its changes so far were allowed.
    """

    __slots__ = ("annex", "last", "pace", "paid_until")

    def __init__(self) -> None:
        self.annex = self.last = EMPTY
        self.pace = Pace()
        self.paid_until = 0.0


class Change(NamedTuple):
    """What a session is about to say of a game; `said`: of all of them, `part` of this one, by `values`."""

    session: Session
    shown: Shown
    said: dict[str, Part]
    id: str
    game: Game
    part: dict[str, Any]
    values: Any


class Saying(Plugin):
    """Takes what is said, and adds it to what is shown."""

    Config = RichPresenceConfig
    config: RichPresenceConfig

    sure = Table(
        partition=("account",),
        cluster=("game",),
        columns={
            "fields": "text",
            "claims": "text",
            "signature": "text",
            "party": "text",
            "version": "int",
        },
        person=Person("account", mentions={"party": "masked"}),
    )
    said: SessionSlot[dict[str, Part] | None] = SessionSlot(None)
    """What a session says, by game: plain data, which goes with it to another node."""
    shown: SessionSlot[Shown | None] = SessionSlot(None)
    changes = Counter("Changes of rich presence that clients said.")
    merged = Counter("Changes that were shown together with newer ones, or were none.")
    refused = Counter("Changes that were refused.")
    entered = Emitter(
        "game.entered",
        "A session of an account began to say something of a game.",
        fields={"game": EventField("text", "which one"), "resource": EventField("text", "the session's")},
        example={"game": "chess", "resource": "pc"},
    )
    left = Emitter(
        "game.left",
        "A session of an account says nothing of a game any more.",
        fields={"game": EventField("text", "which one"), "resource": EventField("text", "the session's")},
        example={"game": "chess", "resource": "pc"},
    )

    async def start(self) -> None:
        """Show what sessions say by the settings of now."""
        await super().start()
        self._sure: Lru[tuple[str, str], Sure] = Lru(KNOWN)
        self._looks: dict[int, tuple[asyncio.Future[None], dict[str, list[Any]], set[str]]] = {}
        self._number = 0
        self.spawn(self._begin_again())

    async def _begin_again(self) -> None:
        for session in self.server.online():
            shown = self.shown[session]
            if shown is not None and not session.is_over:
                shown.pace = Pace()  # timers ended with the instance before
                await self.go_on(session)
                await asyncio.sleep(0)

    # what a client says

    @iq_set(GAME, SELF)
    def say(self, request: Request) -> Awaitable[None] | None:
        """One game: its state, or without one that there is nothing more to be said of it."""
        session, tree = request.session, request.payload
        id, shown = tree.get("id", ""), self._paid(session)
        said = self.said[session]
        if said is None:
            said = self.said[session] = {}
        state = tree.findtext(STATE)
        if state is None:
            if said.pop(id, None) is not None:
                self._tell(self.left, session, id)
                self._changed(session, shown, said)
            return None
        game = self.config.games.get(id)
        try:
            if game is None:
                raise StanzaError("item-not-found", "There is no such game.")
            if id not in said and len(said) >= self.config.games_of_session:
                raise StanzaError("resource-constraint", "This session says enough of other games.")
            values = self._values_of(game, state)
            part: dict[str, Any] = {"state": written(values)}
            if len(tree) > 1:
                part.update(_join_of(game, tree))
        except StanzaError:
            self.refused.inc()
            raise
        saying = Change(session, shown, said, id, game, part, values)
        account, known = session.account, self._sure
        if known.get((account, id)) is None or any(known.get((account, it)) is None for it in said):
            return begun(self._say_later(saying))
        self._say(saying)
        return None

    def _values_of(self, game: Game, state: str) -> Any:
        """What a state says; StanzaError with the path of what is wrong."""
        try:
            values = read(state or "{}", game.bytes)
            game.says.check(values)
        except Mistake as mistake:
            where = element(f"{{{NS}}}mistake", {"path": mistake.path})
            raise StanzaError("not-acceptable", str(mistake), detail=where) from None
        return values

    def _paid(self, session: Session) -> Shown:
        """Count a change; StanzaError where that is one too many."""
        shown, now = self.shown[session], self.now()
        if shown is None:
            shown = self.shown[session] = Shown()
        paid_until = max(shown.paid_until, now - MINUTE) + MINUTE / self.config.changes_per_minute
        if paid_until > now:
            self.refused.inc()
            raise too_often(paid_until - now)
        shown.paid_until = paid_until
        return shown

    async def _say_later(self, change: Change) -> None:
        for id in {change.id, *change.said}:
            await self._learn(change.session.account, id)
        if not change.session.is_over:
            self._say(change)

    def _status_of(self, account: str, id: str, game: Game, values: Mapping[str, Any]) -> str:
        """What standard clients show of it."""
        sure = self._sure.get((account, id)) or NOTHING
        fields = json.loads(sure.fields) if sure.fields else {}
        return status_of(game, {**fields, **values})

    def _say(self, change: Change) -> None:
        session, shown, said, id, game, part, values = change
        before = said.get(id)
        part["since"] = utc_stamp(self.now()) if before is None else before["since"]
        if game.status:
            part["status"] = self._status_of(session.account, id, game, values)
        self.changes.inc()
        if part == before:
            self.merged.inc()
            return
        said[id] = part
        self._changed(session, shown, said)
        if before is None:
            self._tell(self.entered, session, id)

    def _tell(self, emitter: Emitter, session: Session, id: str) -> None:
        if emitter.is_wanted:
            self.spawn(emitter.emit(session.account, game=id, resource=session.resource))

    # showing it

    @hooks.presence_annexed
    def annex(self, session: Session, said: bytes) -> bytes:
        """Whatever a session says of itself has all beside it that is newest."""
        shown = self.shown[session]
        if shown is None:
            return b""
        shown.last = shown.annex
        return shown.annex.beside(said)

    def _changed(self, session: Session, shown: Shown, said: Mapping[str, Part]) -> None:
        """Something of it is another one: show that when it may be."""
        account, known = session.account, self._sure
        sure = {id: known.get((account, id)) or NOTHING for id in said}
        shown.annex = annex_of(said, self.config.games, sure)
        if session.presence is None:
            return  # it is shown with that
        if shown.annex == shown.last:
            self.merged.inc()
            return
        wait = shown.pace.said(self.now(), self.config.window)
        if wait is None:
            self.merged.inc()
        elif wait:
            self.call_later(wait, self._show, session, shown)
        else:
            self._show(session, shown)

    def _show(self, session: Session, shown: Shown) -> None:
        """Show what is newest, unless that was done meanwhile."""
        if session.is_over or session.presence is None or shown.annex == shown.last:
            shown.pace.is_waiting = False
            return
        owed = self.server.restate(session)
        if owed > 0:
            shown.pace.is_waiting = True
            self.call_later(owed, self._show, session, shown)
        else:
            shown.pace.shown(self.now(), self.config.window)

    @hooks.session_resumed
    async def go_on(self, session: Session) -> None:
        """What it says came with it from another node."""
        said, shown = self.said[session], self.shown[session]
        if said:
            for id in [*said]:
                await self._learn(session.account, id)
            if shown is None:
                shown = self.shown[session] = Shown()
            self._changed(session, shown, said)

    @hooks.session_closed
    def end(self, session: Session) -> None:
        """Its games are left."""
        for id in self.said[session] or ():
            self._tell(self.left, session, id)

    @hooks.presence_sent.at(hooks.POLICY)
    def no_forgery(self, session: Session, presence: Stanza) -> None:
        """Nobody says by himself what the server says here."""
        if presence.is_plain or (presence.raw.find(b"rich-presence") < 0 and presence.raw.find(b"&#") < 0):
            return
        if any(child.tag.startswith(f"{{{NS}}}") for child in presence.xml.iter()):
            raise StanzaError("not-allowed", "Say this by an iq to your own account.")

    # what the back end says

    async def _learn(self, account: str, game: str) -> Sure:
        """What it says of an account and a game."""
        known = self._sure.get((account, game))
        if known is not None or game not in self.config.games:
            return known or NOTHING
        row = await self.sure.get(account, game)
        known = self._sure.get((account, game))  # it may have been said meanwhile
        if known is None:
            known = NOTHING if row is None else sure_of(row)
            self._sure.put((account, game), known)
        return known

    @hooks.node_met
    def doubt(self, node: str) -> None:
        """What was said there meanwhile was not told here."""
        self._sure.clear()

    @command("Say something of an account and a game that clients cannot say", name="game set")
    async def set_fields(
        self,
        account: Annotated[Jid, "whom it is about"],
        game: Annotated[str, "the id of the game"],
        fields: Annotated[str, "what is said, as a JSON object"] = "{}",
        *,
        party: Annotated[list[str] | None, "who is in the same party"] = None,
    ) -> dict[str, Any]:
        """In place of what was said before."""
        configured = self.config.games.get(game)
        if configured is None:
            raise CommandError(f"there is no game {game!r}", field="game")
        try:
            values = read(fields, configured.bytes)
            configured.says.check(values, is_server=True)
        except Mistake as mistake:
            raise CommandError(str(mistake), field="fields") from None
        members = sorted({Jid.parse(member).bare for member in party or ()})
        if len(members) > PARTY:
            raise CommandError(f"a party has {PARTY} members at most", field="party")
        text = written(values) if values else ""
        claims = self._claims(account.bare, game, values) if values else ""
        sure = Sure(text, claims, self._signature(claims), tuple(members))
        async with self.server.writing(account.bare) as exists:
            if not exists:
                raise CommandError(f"there is no account {account.bare}", field="account")
            sure = await self._keep(account.bare, game, sure)
        self.sure_changed.tell(account.bare, game, *sure)
        return {"account": account.bare, "game": game, "fields": values, "party": members}

    async def _keep(self, account: str, game: str, sure: Sure) -> Sure:
        """Write it down, with the number by which all nodes know which is newer; CommandError."""
        for _ in range(ATTEMPTS):
            row = await self.sure.get(account, game)
            before = 0 if row is None else row["version"] or 0
            sure = sure._replace(version=max(before + 1, int(self.now() * 1000)))
            written = {**sure._asdict(), "account": account, "game": game, "party": json.dumps(sure.party)}
            expect = None if row is None else {"version": row["version"], "claims": row["claims"]}
            if await self.sure.put_if(written, expect):
                return sure
        raise CommandError("others say something of this game, too; try again")

    def _claims(self, account: str, game: str, values: Any) -> str:
        return written({"sub": account, "game": game, "iat": int(self.now()), "fields": values})

    def _signature(self, claims: str) -> str:
        """A JWS whose payload stands elsewhere (RFC 7515, appendix F)."""
        key = self.config.key
        if key is None or not claims:
            return ""
        header = _coded(written({"alg": "HS256", "kid": self.config.key_id}).encode())
        text = f"{header}.{_coded(claims.encode())}".encode()
        return f"{header}..{_coded(hmac.digest(key.value.encode(), text, 'sha256'))}"

    @cluster_signal
    def sure_changed(
        self,
        account: str,
        game: str,
        fields: str,
        claims: str,
        signature: str,
        party: list[str],
        version: int = 0,
    ) -> None:
        """Show it where it is said of a session here, unless something newer is known."""
        known = self._sure.get((account, game))
        if known is not None and known.version > version:
            return
        self._sure.put((account, game), Sure(fields, claims, signature, tuple(party), version))
        configured = self.config.games.get(game)
        for session in self.server.sessions(account):
            said, shown = self.said[session], self.shown[session]
            if not said or shown is None or (part := said.get(game)) is None:
                continue
            if configured is not None and configured.status:
                status = self._status_of(account, game, configured, json.loads(part["state"]))
                said[game] = {**part, "status": status}
            self._changed(session, shown, said)

    @command("Show what is said of the games of an account", name="game show", reads=True)
    async def show_games(self, account: Annotated[Jid, "whose"]) -> list[dict[str, Any]]:
        """A row for each game that a session of it is in, on whatever node, or of which the back end says
        something.
        """
        page = await self.sure.scan(account.bare)
        rows = {row["game"]: sure_of(row) for row in page.rows}
        found = []
        for resource, id, state, secret, policy in await self._parts_of(account.bare):
            sure = rows.pop(id, NOTHING)
            found.append(
                {
                    "game": id,
                    "resource": resource,
                    "client": json.loads(state),
                    "server": json.loads(sure.fields or "{}"),
                    "join": policy if secret else "",
                    "party": list(sure.party),
                }
            )
        for id, sure in rows.items():
            fields = json.loads(sure.fields or "{}")
            found.append(
                {
                    "game": id,
                    "resource": "",
                    "client": {},
                    "server": fields,
                    "join": "",
                    "party": list(sure.party),
                }
            )
        return found

    # joining

    @iq_get(JOIN, ACCOUNT)
    async def join(self, request: Request) -> Element:
        """The secret by which who may do so joins somebody's game. Who may not is told the same as where
        there is nothing to be joined, or nobody.
        """
        viewer, account, id = request.origin.account, request.target, request.payload.get("id", "")
        if isinstance(request.origin, Session):
            self._paid(request.origin)
        if not self.server.appears_offline(account, viewer):
            sure = await self._learn(account, id)
            is_friend = await self.is_friend(account, viewer)
            for _, game, _, secret, policy in await self._parts_of(account):
                is_let = (policy == "friends" and is_friend) or (policy == "party" and viewer in sure.party)
                if game == id and secret and (is_let or viewer == account):
                    return element(JOIN, {"id": id, "secret": secret})
        raise StanzaError("item-not-found", "There is nothing that you could join.")

    async def is_friend(self, account: str, other: str) -> bool:
        """Whether two accounts are friends: see each other."""
        try:
            item = await self.server.rosters.item(account, other)
        except AccountUnknown:
            return False
        return item is not None and item.subscription == "both"

    async def _parts_of(self, account: str) -> list[list[Any]]:
        """What sessions of an account say, on all nodes: resource, game, state, secret and policy of each."""
        found = {"": self._parts_here(account)}
        nodes = [name for name in self.server.nodes_of(account) if name != self.server.node]
        if nodes:
            self._number += 1
            number, done = self._number, asyncio.get_running_loop().create_future()
            self._looks[number] = done, found, set(nodes)
            try:
                for node in nodes:
                    self.look.tell_node(node, self.server.node, number, account)
                timer = self.call_later(LOOK_SECONDS, _settle, done)
                await done
                timer.cancel()
            finally:
                del self._looks[number]
        return [part for parts in found.values() for part in parts]

    def _parts_here(self, account: str) -> list[Any]:
        return [
            [session.resource, id, part["state"], part.get("secret", ""), part.get("for", "")]
            for session in self.server.sessions(account)
            if session.presence is not None
            for id, part in (self.said[session] or {}).items()
        ]

    @cluster_signal
    def look(self, node: str, number: int, account: str) -> None:
        """Another node asks what sessions here say."""
        self.looked.tell_node(node, self.server.node, number, self._parts_here(account))

    @cluster_signal
    def looked(self, node: str, number: int, parts: list[list[Any]]) -> None:
        """It was asked for from here."""
        if (looking := self._looks.get(number)) is not None:
            done, found, left = looking
            found[node] = parts
            left.discard(node)
            if not left:
                _settle(done)

    # accounts

    @hooks.account_removed
    async def forget(self, account: str) -> None:
        """Whoever takes the name next starts anew."""
        await self.sure.delete(account)
        self.moved(account, account)

    @hooks.account_moved
    def moved(self, old: str, new: str) -> None:
        """What is remembered of both is read anew."""
        for id in self.config.games:
            self._sure.drop((old, id))
            self._sure.drop((new, id))


def too_often(seconds: float) -> StanzaError:
    """What tells a client to wait so long."""
    hint = element(RETRY, {"seconds": str(max(1, math.ceil(seconds)))})
    return StanzaError("policy-violation", "Change it less often.", type="wait", detail=hint)


def sure_of(row: Mapping[str, Any]) -> Sure:
    """What a row says."""
    party, version = _names(row["party"]), row["version"] or 0
    return Sure(row["fields"] or "", row["claims"] or "", row["signature"] or "", party, version)


def _settle(done: asyncio.Future[None]) -> None:
    """Nobody is waited for any more."""
    if not done.done():
        done.set_result(None)


def _names(text: str | None) -> tuple[str, ...]:
    names: Iterable[str] = json.loads(text or "[]")
    return tuple(names)


def _join_of(game: Game, tree: Element) -> dict[str, str]:
    """How it may be joined; StanzaError for a policy that is none here."""
    join = tree.find(JOIN)
    secret = join.get("secret", "") if join is not None else ""
    if join is None or not secret:
        return {}
    policy = join.get("for") or game.join[0]
    if policy not in game.join:
        raise StanzaError("not-acceptable", f"It may be joined by {', '.join(game.join)}.")
    if len(secret.encode()) > SECRET_BYTES:
        raise StanzaError("not-acceptable", f"A join secret has {SECRET_BYTES} bytes at most.")
    return {"secret": secret, "for": policy}


def _coded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
