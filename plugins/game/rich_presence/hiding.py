"""Appearing offline: to all, to groups of the roster, or to some friends."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Final

from xmppd import hooks, ns
from xmppd.plugin import (
    SELF,
    CommandError,
    Delete,
    Element,
    Jid,
    JidError,
    Kept,
    Person,
    Plugin,
    Put,
    Request,
    RosterChange,
    Session,
    Stanza,
    StanzaError,
    Table,
    begun,
    cluster_signal,
    command,
    element,
    iq_get,
    iq_set,
)

from .config import RichPresenceConfig
from .rules import ALL, FRIEND, GROUP, Away, Groups, Key, Rule, away_of, changed, differing
from .said import NS

HIDDEN: Final = f"{{{NS}}}hidden"
GROUP_CHARACTERS: Final = 1023
BODY: Final = f"{{{ns.CLIENT}}}body"
SPOKEN: Final = (
    *(name.encode() for name in (ns.RECEIPTS, ns.CHAT_MARKERS, ns.CHAT_STATES, ns.JINGLE_MESSAGE)),
    b"&#",
)
"""What clients say by themselves: that a message arrived, was read, or is being written, that they ring."""
RINGING: Final = f"{{{ns.JINGLE_MESSAGE}}}ringing"
GONE: Final = -1
TALK: Final = tuple(f"{{{name}}}" for name in (ns.RECEIPTS, ns.CHAT_MARKERS, ns.CHAT_STATES))


class Hiding(Plugin):
    """Keeps from whom accounts hide. Every node knows that of those that have sessions anywhere: `_away`."""

    config: RichPresenceConfig

    rules = Table(
        partition=("account",),
        cluster=("kind", "name"),
        columns={"since": "timestamp", "is_on": "bool"},
        person=Person("account", mentions={"name": "deleted"}),
    )
    turns = Table(partition=("account",), columns={"number": "int"}, person=Person("account"))
    """How often rules of an account have changed: what nodes are told of it has this number, so that the last
    of it counts, whatever comes last.
    """
    away: Kept[dict[str, list[Any]]] = Kept(dict)
    """By account: since when it looks gone to others, and to whom otherwise, as plain data."""
    numbers: Kept[dict[str, int]] = Kept(dict)
    """Of accounts that are there: the number of what was told of them last."""

    async def start(self) -> None:
        """Act by what is known."""
        await super().start()
        self.server.recall_away(self.recall)
        for account, (others, named) in self.away.items():
            self.server.appear_offline(account, Away(others, named).since)

    async def stop(self) -> None:
        """Nobody hides without this plugin."""
        await super().stop()
        self.server.recall_away(None, instead_of=self.recall)

    # who comes and goes

    @hooks.session_bound
    def meet(self, session: Session) -> Awaitable[None] | None:
        """Nobody sees a new session before it is known from whom it hides."""
        account = session.account
        if session.is_anonymous or account in self.away or len(self.server.sessions(account)) > 1:
            return None
        return begun(self._meet(account))

    async def _meet(self, account: str) -> None:
        turn = await self.turns.get(account)
        if turn is not None:
            away = await self._read(account)
            self.appears.tell(account, away.others, dict(away.named), turn["number"])

    async def _read(self, account: str) -> Away:
        """To whom it is to look gone now."""
        page = await self.rules.scan(account)
        return away_of(rules_of(page.rows), await self._groups(account)) if page.rows else Away()

    async def _next(self, account: str) -> int:
        """The number of a change that was just written: what is read afterwards has it. StoreError."""
        while True:
            row = await self.turns.get(account)
            before = 0 if row is None else row["number"]
            number = max(before + 1, int(self.now() * 1000))
            expect = None if row is None else {"number": before}
            if await self.turns.put_if({"account": account, "number": number}, expect):
                return number

    @hooks.session_closed
    def note_end(self, session: Session) -> None:
        """What is known of accounts that have no session any more is read again when they have one."""
        if session.account in self.numbers and not self.server.is_connected(session.account):
            self.appears.tell(session.account, None, {}, GONE)

    @cluster_signal
    def appears(self, account: str, others: float | None, named: dict[str, float], number: int) -> None:
        """From now on it looks so, on every node, unless something newer was told. Of who is `GONE` nothing
        is known, where he has not come again meanwhile.
        """
        if number == GONE:
            if self.server.is_connected(account):
                return
            self.numbers.pop(account, None)
        elif number < self.numbers.get(account, 0):
            return
        else:
            self.numbers[account] = number
        away = Away(others, named)
        if away:
            self.away[account] = [others, named]
            self.server.appear_offline(account, away.since)
        elif self.away.pop(account, None) is not None:
            self.server.appear_offline(account, None)

    @hooks.node_runs
    def tell_newcomer(self, node: str, plugins: Sequence[str], anew: Sequence[str]) -> None:
        """A node that knows nothing yet is told of those who have sessions here."""
        if self.name in anew:
            for account, (others, named) in self.away.items():
                if self.server.sessions(account):
                    number = self.numbers.get(account, 0)
                    self.appears.tell_node(node, account, others, named, number)

    async def recall(self, account: str, viewer: str) -> float | None:
        """Since when an account, with sessions or without, looks gone to another; None: it looks as it is."""
        known = self.away.get(account)
        if known is not None:
            return Away(*known).since(viewer)
        return (await self._read(account)).since(viewer)

    async def _groups(self, account: str) -> dict[str, tuple[str, ...]]:
        return {item.contact: tuple(item.groups) for item in await self.server.rosters.items(account)}

    # changes

    async def _change(self, account: str, wanted: Iterable[Key]) -> None:
        """Hide from these and nobody else."""
        async with self.server.lock(f"hidden:{account}"), self.server.writing(account) as exists:
            if exists:
                groups = await self._groups(account)
                await self._take_over(account, wanted, groups, groups)

    async def _take_over(
        self, account: str, wanted: Iterable[Key] | None, before: Groups, after: Groups
    ) -> None:
        """The rules, or the groups they are about, are others. Who is hidden from now on is shown the end of
        what he saw before anybody acts by that, and who is not any more sees it afterwards.
        """
        held = rules_of((await self.rules.scan(account)).rows)
        if wanted is None:
            wanted = [key for key, rule in held.items() if rule.is_on]
        gone = self.now() if self.server.locate(account) else await self._left_at(account)
        rules = changed(held, before, wanted, after, gone)
        writes: list[Put | Delete] = [
            Put({"kind": kind, "name": name, "since": rule.since, "is_on": rule.is_on})
            for (kind, name), rule in rules.items()
            if held.get((kind, name)) != rule
        ]
        writes += [Delete(key) for key in held.keys() - rules.keys()]
        if writes:
            await self.rules.batch(account, writes=writes)
        number = await self._next(account)
        if not self.server.is_connected(account):
            return
        was, now = away_of(held, before), await self._read(account)
        leaving, coming = differing(was, now, {*before, *after})
        for viewer in leaving:
            self.server.hide_presence(account, viewer)
        self.appears.tell(account, now.others, dict(now.named), number)
        for viewer in coming:
            self.server.show_presence(account, viewer)

    async def _left_at(self, account: str) -> float:
        """When an account that is away left, as far as anybody knows; 0.0: it is not known."""
        return 0.0

    @hooks.roster_changed
    async def regroup(self, account: str, change: RosterChange) -> None:
        """A contact may have come into a group from which the account hides, or left it."""
        old, new = _groups_of(change.old), _groups_of(change.new)
        if old == new or (account not in self.away and not self.server.is_connected(account)):
            return
        if account not in self.away and not (await self.rules.scan(account, limit=1)).rows:
            return
        async with self.server.lock(f"hidden:{account}"), self.server.writing(account) as exists:
            if exists:
                after = await self._groups(account)
                await self._take_over(account, None, {**after, change.contact: old}, after)

    @hooks.account_removed
    async def drop_rules(self, account: str) -> None:
        """Whoever takes the name next hides from nobody."""
        await self.rules.delete(account)
        await self.turns.delete(account)
        self.appears.tell(account, None, {}, GONE)

    @hooks.account_moved
    def drop_known(self, old: str, new: str) -> None:
        """What is known is read again when they log in."""
        self.appears(old, None, {}, GONE)
        self.appears(new, None, {}, GONE)

    # what clients ask

    @iq_get(HIDDEN, SELF)
    async def show_hidden(self, request: Request) -> Element:
        """From whom the account hides."""
        rules = rules_of((await self.rules.scan(request.session.account)).rows)
        return hidden_of(key for key, rule in rules.items() if rule.is_on)

    @iq_set(HIDDEN, SELF)
    async def set_hidden(self, request: Request) -> None:
        """Hide from those that are named, and from nobody else."""
        session = request.session
        if session.is_anonymous:
            raise StanzaError("not-allowed", "An anonymous session hides from nobody.")
        wanted = wanted_in(request.payload)
        if len(wanted) > self.config.hidden_from:
            raise StanzaError("resource-constraint", "That is more than one may hide from.", type="cancel")
        await self._change(session.account, wanted)

    @hooks.message_sent.at(hooks.FILTER, hooks.LATE)
    def hold_back(self, session: Session, message: Stanza) -> Stanza | hooks.Drop:
        """Who is offline tells nobody by himself that a message arrived or was read."""
        if (message.is_plain and message.type != "error") or session.account not in self.away:
            return message
        to = (message.to or session.account).partition("/")[0]
        if not self.server.appears_offline(session.account, to):
            return message
        if message.type == "error":
            return hooks.DROP
        if all(message.raw.find(name) < 0 for name in SPOKEN):
            return message
        if message.xml.find(BODY) is not None:
            return message
        is_spoken = any(child.tag.startswith(TALK) or child.tag == RINGING for child in message.xml)
        return hooks.DROP if is_spoken else message

    @hooks.iq_sent.at(hooks.FILTER, hooks.LATE)
    def ask_nobody(self, session: Session, iq: Stanza) -> Stanza | hooks.Drop:
        """Who is offline asks no client of others anything, as clients do by themselves, and answers none."""
        to = iq.to
        if to is None or session.account not in self.away or "/" not in to:
            return iq
        try:
            contact = Jid.parse(to)
        except JidError:
            return iq  # it is refused
        is_theirs = contact.local and contact.domain in self.server.domains
        if not is_theirs or not self.server.appears_offline(session.account, contact.bare):
            return iq
        if iq.type in ("get", "set"):
            raise StanzaError("service-unavailable", "You appear offline to this contact.")
        return hooks.DROP

    # what operators ask

    @command("Have an account appear offline", name="presence hide")
    async def hide(
        self,
        account: Annotated[Jid, "who"],
        *,
        all: Annotated[bool, "to everybody"] = False,
        group: Annotated[list[str] | None, "to the contacts in this group"] = None,
        friend: Annotated[list[str] | None, "to this contact"] = None,
    ) -> list[dict[str, Any]]:
        """To those that are named, and to nobody else; without any it hides no more."""
        wanted: list[Key] = [(ALL, "")] if all else []
        wanted += [(GROUP, name) for name in group or ()]
        try:
            wanted += [(FRIEND, Jid.parse(name).bare) for name in friend or ()]
        except JidError as error:
            raise CommandError(str(error), field="friend") from None
        if len(wanted) > self.config.hidden_from:
            raise CommandError(f"an account hides from {self.config.hidden_from} at most")
        if not await self.server.account_exists(account.bare):
            raise CommandError(f"there is no account {account.bare}", field="account")
        await self._change(account.bare, wanted)
        return await self._hidden(account.bare)

    @command("Show to whom an account appears offline", name="presence hidden", reads=True)
    async def hidden(self, account: Annotated[Jid, "whose"]) -> list[dict[str, Any]]:
        """One row for each; `since`: in seconds since the epoch."""
        return await self._hidden(account.bare)

    async def _hidden(self, account: str) -> list[dict[str, Any]]:
        rules = rules_of((await self.rules.scan(account)).rows)
        return [
            {"to": kind, "name": name, "since": rule.since}
            for (kind, name), rule in sorted(rules.items())
            if rule.is_on
        ]


def rules_of(rows: Iterable[Mapping[str, Any]]) -> dict[Key, Rule]:
    """The rules as they are kept."""
    return {(row["kind"], row["name"]): Rule(row["since"], row["is_on"]) for row in rows}


def hidden_of(keys: Iterable[Key]) -> Element:
    """The rules as clients say them."""
    children = [
        element(f"{{{NS}}}{kind}", None, *([name] if kind != ALL else [])) for kind, name in sorted(keys)
    ]
    return element(HIDDEN, None, *children)


def wanted_in(payload: Element) -> list[Key]:
    """The rules that a client says; StanzaError."""
    found: dict[Key, None] = {}
    for child in payload:
        kind, text = child.tag.removeprefix(f"{{{NS}}}"), (child.text or "").strip()
        if kind == ALL:
            found[ALL, ""] = None
        elif kind == GROUP and 0 < len(text) <= GROUP_CHARACTERS:
            found[GROUP, text] = None
        elif kind == FRIEND:
            try:
                found[FRIEND, Jid.parse(text).bare] = None
            except JidError as error:
                raise StanzaError("jid-malformed", str(error)) from None
        else:
            raise StanzaError("bad-request", "Hide from all, from a group or from a friend.")
    return list(found)


def _groups_of(item: Any) -> tuple[str, ...]:
    return () if item is None else tuple(item.groups)
