"""What players may not do: sanctions, imposed by commands, in force on all nodes, told to whom they hit."""

from __future__ import annotations

import secrets
from collections.abc import Coroutine, Mapping, Sequence
from typing import Annotated, Any, Final

from xmppd import hooks, ns
from xmppd.plugin import (
    SELF,
    Caller,
    Channel,
    CommandError,
    Counter,
    Element,
    Emitter,
    EventField,
    Jid,
    Kept,
    Login,
    Lru,
    Person,
    Plugin,
    Request,
    SaslError,
    Session,
    StoreError,
    Table,
    XmppdError,
    begun,
    cluster_signal,
    command,
    element,
    every,
    happened,
    iq_get,
    offered,
    read_stanza,
    serialize,
)

from .config import ModerationConfig
from .silence import Silence
from .standing import KINDS, SCOPES, Sanction, Standing, standing_from, standing_of
from .texts import Texts, iso, moment

NS: Final = "urn:xmppd:moderation:0"
SANCTIONS: Final = f"{{{NS}}}sanctions"
SANCTION: Final = f"{{{NS}}}sanction"
MESSAGE: Final = f"{{{ns.CLIENT}}}message"
BODY: Final = f"{{{ns.CLIENT}}}body"
FRESH: Final = 20_000
FRESH_SECONDS: Final = 30.0
"""For how many logins, and how long, what was found out for one holds for the session that is bound by it."""
LOOK_SECONDS: Final = 5.0
"""How often a node looks for what it was not told."""
BACK_SECONDS: Final = 60.0
"""How far it looks back, since clocks differ."""
OVER_SECONDS: Final = 1.0
"""How often it is looked whose time is over."""
HOUR: Final = 3600.0
DAY: Final = 86_400.0
MOST_MINUTES: Final = 5_256_000
MOST_TEXT: Final = 1_000
MOST_SANCTIONS: Final = 1_000
"""Of one account."""
READ_AT_ONCE: Final = 100
TRIES: Final = 5


class Sanctions(Plugin):
    """The part of the plugin that knows who may do what. `standing`: of accounts with sessions here that may
    not do everything.
    """

    Config = ModerationConfig
    config: ModerationConfig
    sanctions = Table(
        partition=("account",),
        cluster=("id",),
        columns={
            "kind": "text",
            "scope": "text",
            "since": "timestamp",
            "until": "timestamp",
            "reason": "text",
            "note": "text",
            "by": "text",
            "case": "text",
            "lifted": "timestamp",
            "lifted_by": "text",
        },
        person=Person("account", mentions={"by": "kept", "lifted_by": "kept"}),
    )
    changes = Table(
        partition=("hour",),
        cluster=("id",),
        columns={"hour": "int", "account": "text"},
        ttl=2 * HOUR,
        person=Person(mentions={"account": "deleted"}),
    )
    held: Kept[dict[str, list[list[Any]]]] = Kept(dict)
    imposed = Emitter(
        "sanction.imposed",
        "An account may not do something from now on.",
        fields={
            "id": EventField("text", "which sanction"),
            "kind": EventField("text", "`mute`, `chat-limit` or `ban`"),
            "scope": EventField("text", "`all`, `direct` or `groups`"),
            "until": EventField("number", "seconds since the epoch; null: for ever", optional=True),
            "reason": EventField("text", "what the player is told"),
            "by": EventField("text", "who imposed it"),
            "case": EventField("text", 'the case that it comes from, or ""'),
        },
        example={
            "id": "0006433a4b1c2d",
            "kind": "mute",
            "scope": "all",
            "until": 1790000000.0,
            "reason": "Insults.",
            "by": "mia",
            "case": "",
        },
        key=("id",),
    )
    ended = Emitter(
        "sanction.lifted",
        "A sanction was ended before its time.",
        fields={
            "id": EventField("text", "which sanction"),
            "kind": EventField("text", "`mute`, `chat-limit` or `ban`"),
            "by": EventField("text", "who lifted it"),
        },
        example={"id": "0006433a4b1c2d", "kind": "mute", "by": "mia"},
        key=("id",),
    )
    kept_out = Counter("Logins of banned accounts.")

    async def start(self) -> None:
        """Those whose sessions were here before are as they were; what was not known of is read."""
        self.texts = Texts(self.config.texts, self.config.language)
        self.silence = Silence(self.server.domains)
        self.standing: dict[str, Standing] = {
            account: standing_from(plain) for account, plain in self.held.items()
        }
        self._fresh: Lru[str, tuple[float, Standing]] = Lru(FRESH)
        self._changes = 0
        self._heeded: dict[str, float] = {}
        self._looked = self.now()
        self.spawn(self._read_all())

    async def _read_all(self) -> None:
        """Of sessions that were here before the plugin was."""
        accounts = sorted({session.account for session in self.server.online() if not session.is_anonymous})
        for start in range(0, len(accounts), READ_AT_ONCE):
            some = accounts[start : start + READ_AT_ONCE]
            for account, rows in zip(some, await self.sanctions.scan_many(some), strict=True):
                self._stand(account, standing_of(rows, self.now()))

    # what holds

    def sanction_of(self, account: str, kind: str, scope: str = "") -> Sanction | None:
        """The one of this kind that an account with sessions here has in force."""
        standing = self.standing.get(account)
        return None if standing is None else standing.of(kind, self.now(), scope)

    @offered
    def is_sanctioned(self, account: str, what: str) -> bool:
        """Whether an account with a session here may not do something: "mute", "chat-limit", "ban"."""
        return self.sanction_of(account, what) is not None

    @offered
    async def has_sanction(self, account: str, what: str) -> bool:
        """The same of any account; StoreError."""
        standing = self.standing.get(account)
        if standing is None and not self.server.sessions(account):
            standing = await self.read(account)
        return standing is not None and standing.of(what, self.now()) is not None

    async def read(self, account: str) -> Standing:
        """What is in force, not older than what this node has heard of; StoreError."""
        for _ in range(TRIES):
            changes = self._changes
            page = await self.sanctions.scan(account, limit=MOST_SANCTIONS, reverse=True)
            if changes == self._changes:
                break
        return standing_of(page.rows, self.now())

    @cluster_signal
    def stands(self, account: str, plain: list[list[Any]], node: str) -> None:
        """From now on this is in force for an account. What another node says is not the last word, for what
        several say at once comes in any order: so it is read here as well.
        """
        self._changes += 1
        self._fresh.drop(account)
        if node == self.server.node:
            self._stand(account, standing_from(plain))
        elif self.server.sessions(account):
            self.spawn(self._stand_as_kept(account, standing_from(plain)))

    async def _stand_as_kept(self, account: str, otherwise: Standing) -> None:
        try:
            standing = await self.read(account)
        except StoreError:
            standing = otherwise
        self._stand(account, standing)

    def _stand(self, account: str, after: Standing) -> None:
        """Have it so for those of its sessions that are here."""
        sessions = self.server.sessions(account)
        before = self.standing.get(account, Standing())
        if not sessions or set(before) == set(after):
            return
        self._note(account, after)
        now = self.now()
        ids = {it.id for it in before}
        begun_ = [it for it in after if it.id not in ids and it.holds(now)]
        left = {it.id for it in after}
        over = [it for it in before if it.holds(now) and it.id not in left]
        for session in sessions:
            self._tell(session, begun_, over)

    def _note(self, account: str, standing: Standing) -> None:
        if standing:
            self.standing[account] = standing
            self.held[account] = standing.plain
        else:
            self.standing.pop(account, None)
            self.held.pop(account, None)

    # logins

    @hooks.authenticated
    async def admit(self, login: Login, channel: Channel) -> None:
        """No login of a banned account; SaslError."""
        account = login.account
        try:
            standing = await self.read(account)
        except StoreError:
            raise SaslError("temporary-auth-failure") from None
        if (ban := standing.of("ban", self.now())) is not None:
            self.kept_out.inc()
            raise SaslError("account-disabled", self.said(ban, ""))
        self._fresh.put(account, (self.now(), standing))
        if standing.of("mute", self.now(), "all") is not None:
            login.unnamed = True  # a resource is a text that all contacts see

    @hooks.session_bound
    def recall(self, session: Session) -> Coroutine[Any, Any, None] | Any:
        """Know what it may not do before it does anything."""
        if session.is_anonymous:
            return None
        at, standing = self._fresh.get(session.account) or (0.0, Standing())
        self._fresh.drop(session.account)
        if 0 <= self.now() - at <= FRESH_SECONDS:
            self._begin(session, standing)
            return None
        return begun(self._recall(session))

    async def _recall(self, session: Session) -> None:
        self._begin(session, await self.read(session.account))

    def _begin(self, session: Session, standing: Standing) -> None:
        if session.account not in self.standing or standing:
            self._note(session.account, standing)
        if (ban := standing.of("ban", self.now())) is not None:
            self.server.end_session(session, "policy-violation", self.said(ban, session.lang))

    @hooks.session_available
    def remind(self, session: Session) -> None:
        """Whoever comes is told what he may not do."""
        if (standing := self.standing.get(session.account)) is not None:
            self._tell(session, [it for it in standing if it.holds(self.now())], [])

    @hooks.session_closed
    def leave(self, session: Session) -> None:
        """Of who is not here nothing is remembered."""
        if session.account in self.standing and not self.server.sessions(session.account):
            self._note(session.account, Standing())

    # what is told

    def said(self, sanction: Sanction, lang: str | None) -> str:
        """A sanction in words."""
        key = sanction.kind if sanction.until is not None else f"{sanction.kind}-forever"
        until = "" if sanction.until is None else moment(sanction.until)
        return self.texts.say(key, lang, until=until, reason=sanction.reason)

    def shown(self, sanction: Sanction) -> Element:
        """A sanction in the form for clients."""
        attrs = {
            "id": sanction.id,
            "kind": sanction.kind,
            "scope": sanction.scope,
            "since": iso(sanction.since),
        }
        if sanction.until is not None:
            attrs["until"] = iso(sanction.until)
        children = [
            element(f"{{{NS}}}{name}", None, text)
            for name, text in (("reason", sanction.reason), ("note", sanction.note))
            if text
        ]
        return element(SANCTION, attrs, *children)

    def _tell(self, session: Session, begun_: Sequence[Sanction], over: Sequence[Sanction]) -> None:
        """A session learns what it may not do any more, or may again; who is banned goes."""
        if session.is_over:
            return
        for it in begun_:
            if it.kind == "ban":
                self.server.end_session(session, "policy-violation", self.said(it, session.lang))
                return
            self._say(session, self.said(it, session.lang), self.shown(it))
            if it.kind == "mute" and it.scope == "all":
                self.spawn(self._hush(session))
        if over and not any(it.kind != "ban" for it in self.standing.get(session.account, ())):
            self._say(session, self.texts.say("over", session.lang), element(SANCTIONS))

    def _say(self, session: Session, text: str, *children: Element) -> None:
        if session.presence is None or session.priority < 0:
            return
        attrs = {"type": "headline", "from": session.account.rpartition("@")[2], "to": session.full}
        session.send(serialize(element(MESSAGE, attrs, element(BODY, None, text), *children)))

    async def _hush(self, session: Session) -> None:
        """What it says of itself in its presence is taken back."""
        shown = session.presence
        if shown is None:
            return
        try:
            presence = read_stanza(shown.head + shown.tail)
            silent = self.silence.presence(presence, self.config.muted_presence)
            if silent is not None and not session.is_over:
                await self.server.set_presence(session, silent.xml)
        except XmppdError as error:
            self.log.warning("not-hushed", extra={"jid": session.full, "error": str(error)})

    @iq_get(SANCTIONS, SELF)
    async def mine(self, request: Request) -> Element:
        """What the asking account may not do, and until when."""
        if request.session.is_anonymous:
            return element(SANCTIONS)
        standing = await self.read(request.session.account)
        return element(SANCTIONS, None, *map(self.shown, standing))

    # time passes

    @every(OVER_SECONDS)
    def end(self) -> None:
        """Whose time is over is told so."""
        now = self.now()
        for account, standing in list(self.standing.items()):
            if all(it.holds(now) for it in standing):
                continue
            left = Standing(it for it in standing if it.holds(now))
            over = [it for it in standing if not it.holds(now)]
            self._note(account, left)
            for session in self.server.sessions(account):
                self._tell(session, [], over)

    @every(LOOK_SECONDS)
    def look(self) -> Coroutine[Any, Any, None] | None:
        """What a node was not told, where there are others."""
        return self._look() if self.server.has_other_nodes else None

    async def _look(self) -> None:
        now = self.now()
        since = self._looked - BACK_SECONDS
        found: list[tuple[str, str]] = []
        for hour in range(max(hour_of(since), hour_of(now) - 2), hour_of(now) + 2):
            page = await self.changes.scan(hour, start=(id_at(since),))
            found += [(row["id"], row["account"]) for row in page.rows]
        self._heeded = {id: at for id, at in self._heeded.items() if at > now - 2 * HOUR}
        for account in {account for id, account in found if id not in self._heeded}:
            self._changes += 1
            self._fresh.drop(account)
            if self.server.sessions(account):
                self._stand(account, await self.read(account))
        self._heeded.update((id, now) for id, _ in found)
        self._looked = now

    @hooks.account_moved
    def moved(self, old: str, new: str) -> None:
        """Its rows are under the new name; its sessions are read anew when they are bound."""
        for account in (old, new):
            self._changes += 1
            self._fresh.drop(account)
            self._note(account, Standing())

    @hooks.account_removed
    async def forget(self, account: str) -> None:
        """Whoever has the name next has done nothing."""
        self._note(account, Standing())
        await self.sanctions.delete(account)

    # commands

    async def impose(self, account: str, sanction: Sanction) -> bool:
        """Have it in force on all nodes; whether it was not there before. CommandError, StoreError."""
        left = None if sanction.until is None else sanction.until - self.now()
        ttl = None if left is None else max(1.0, left) + self.config.history_days * DAY
        shown = {name: getattr(sanction, name) for name in self.imposed.kind.fields}
        async with self.imposed.around(account, **shown):
            async with self.server.writing(account) as exists:
                if not exists:
                    raise CommandError(f"there is no account {account}", field="account")
                is_new = await self.sanctions.put_if(sanction.row(account), None, ttl=ttl)
                await self._changed(account)
            if is_new:
                await self.imposed.emit(account, **shown)
        return is_new

    @happened("sanction.imposed", "sanction.lifted")
    async def was_done(self, account: str, data: Mapping[str, Any], about: Mapping[str, Any]) -> bool:
        """Whether a sanction is there, or was lifted, that was about to be when this was killed."""
        row = await self.sanctions.get(account, data["id"])
        return row is not None and (about.get("lifted") is None or row["lifted"] is not None)

    async def _changed(self, account: str) -> None:
        """Tell all nodes, and write down that they are to be told."""
        now = self.now()
        await self.changes.put(
            {"hour": hour_of(now), "id": id_at(now) + secrets.token_hex(4), "account": account}
        )
        self._changes += 1
        standing = await self.read(account)
        self.stands.tell(account, standing.plain, self.server.node)

    @command("Mute or ban a player, or have him write less", name="moderation sanction")
    async def sanction(
        self,
        account: Annotated[Jid, "whom"],
        kind: Annotated[str, "mute, chat-limit or ban"],
        by: Caller,
        *,
        minutes: Annotated[float | None, "for so long; without: for ever"] = None,
        scope: Annotated[str, "all, direct (messages to one) or groups"] = "all",
        reason: Annotated[str, "what the player is told"] = "",
        note: Annotated[str, "what he is told of an appeal"] = "",
        moderator: Annotated[str, "who does it, where that is not who calls"] = "",
    ) -> dict[str, Any]:
        """The sanction, with its id."""
        made = self.made(kind, minutes, scope, reason, note, moderator or by.name, "")
        await self.impose(account.bare, made)
        return self.listed(account.bare, made)

    def made(
        self, kind: str, minutes: float | None, scope: str, reason: str, note: str, by: str, case: str
    ) -> Sanction:
        """A sanction that begins now; CommandError."""
        if kind not in KINDS:
            raise CommandError(f"kind must be one of {', '.join(KINDS)}", field="kind")
        if scope not in SCOPES or (scope != "all" and kind == "ban"):
            raise CommandError(f"scope must be one of {', '.join(SCOPES)}, and all for a ban", field="scope")
        if minutes is not None and not 0 < minutes <= MOST_MINUTES:
            raise CommandError(f"minutes must be more than 0, and {MOST_MINUTES} at most", field="minutes")
        for name, text in (("reason", reason), ("note", note), ("moderator", by)):
            if len(text) > MOST_TEXT or not is_sayable(text):
                raise CommandError(
                    f"{name} must have {MOST_TEXT} characters at most, none for control", field=name
                )
        now = self.now()
        until = None if minutes is None else now + minutes * 60
        id = id_at(now) + secrets.token_hex(3)
        return Sanction(id, kind, scope, now, until, reason, note, by, case)

    @command("End a sanction before its time", name="moderation lift")
    async def lift(
        self,
        account: Annotated[Jid, "whose"],
        id: Annotated[str, "as `moderation sanctions` shows it"],
        by: Caller,
        *,
        moderator: Annotated[str, "who does it, where that is not who calls"] = "",
    ) -> dict[str, Any]:
        """The sanction as it is now."""
        row = await self.sanctions.get(account.bare, id)
        if row is None:
            raise CommandError(f"there is no sanction {id!r} of {account.bare}", field="id")
        before, now = Sanction.of_row(row), self.now()
        if before.lifted is None:
            name = moderator or by.name
            after = before._replace(lifted=now, lifted_by=name)
            expect = {"kind": before.kind, "lifted": None}
            changed = {"account": account.bare, "id": id, "lifted": now, "lifted_by": name}
            told = {"id": id, "kind": before.kind, "by": name}
            async with self.ended.around(account.bare, {"lifted": now}, **told):
                if not await self.sanctions.put_if(changed, expect, ttl=self._left(before)):
                    raise CommandError("somebody else has just changed this sanction", field="id")
                before = after
                await self.ended.emit(account.bare, **told)
        await self._changed(account.bare)
        return self.listed(account.bare, before)

    def _left(self, sanction: Sanction) -> float | None:
        if sanction.until is None:
            return None
        return max(1.0, sanction.until - self.now()) + self.config.history_days * DAY

    @command("Say something of a player's appeal, for him to read", name="moderation note")
    async def annotate(
        self, account: Annotated[Jid, "whose"], id: Annotated[str, "of which sanction"], note: str
    ) -> dict[str, Any]:
        """The sanction as it is now."""
        row = await self.sanctions.get(account.bare, id)
        if row is None:
            raise CommandError(f"there is no sanction {id!r} of {account.bare}", field="id")
        if len(note) > MOST_TEXT or not is_sayable(note):
            raise CommandError(
                f"note must have {MOST_TEXT} characters at most, none for control", field="note"
            )
        before = Sanction.of_row(row)
        changed = {"account": account.bare, "id": id, "note": note}
        if not await self.sanctions.put_if(changed, {"kind": before.kind}, ttl=self._left(before)):
            raise CommandError(f"there is no sanction {id!r} of {account.bare}", field="id")
        await self._changed(account.bare)
        return self.listed(account.bare, before._replace(note=note))

    @command(
        "List the sanctions of a player, also those that are over", name="moderation sanctions", reads=True
    )
    async def sanctions_of(
        self, account: Annotated[Jid, "whose"], *, all: Annotated[bool, "also those that are over"] = False
    ) -> list[dict[str, Any]]:
        """One row for each, the newest first."""
        page = await self.sanctions.scan(account.bare, limit=MOST_SANCTIONS, reverse=True)
        found = map(Sanction.of_row, page.rows)
        return [self.listed(account.bare, it) for it in found if all or it.holds(self.now())]

    def listed(self, account: str, it: Sanction) -> dict[str, Any]:
        """As operators see it."""
        state = "in force" if it.holds(self.now()) else "lifted" if it.lifted is not None else "over"
        return {
            "account": account,
            "id": it.id,
            "kind": it.kind,
            "scope": it.scope,
            "state": state,
            "since": iso(it.since),
            "until": iso(it.until),
            "reason": it.reason,
            "note": it.note,
            "by": it.by,
            "case": it.case,
            "lifted_by": it.lifted_by,
        }


def hour_of(at: float) -> int:
    """The hour of a moment, since the epoch."""
    return int(at // HOUR)


def id_at(at: float) -> str:
    """What the ids of a moment begin with; they are in the order of time."""
    return f"{int(at * 1_000_000):015x}"


def is_sayable(text: str) -> bool:
    """Whether XML can hold it."""
    return not any(
        (char < " " and char not in "\t\n") or "\ud800" <= char <= "\udfff" or char in "\ufffe\uffff"
        for char in text
    )
