"""Where a message goes, by the table of RFC 6121."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import cast

from xmppd.core.accounts import Accounts
from xmppd.core.barred import bars
from xmppd.core.begun import begun
from xmppd.core.blocks import Blocks
from xmppd.core.carbons import Carbons, flushing, give
from xmppd.core.delivery import FELT, KEEPABLE, Action, action_of, kind_of
from xmppd.core.fates import DROPPED, Fates
from xmppd.core.fates import KEPT as IS_KEPT
from xmppd.core.foreseen import Foresee, foreseen
from xmppd.core.intents import Intent
from xmppd.core.later import Act, Later, Line, Pending, failing, giving, raised, settled, watched
from xmppd.core.origin import Origin, Target
from xmppd.core.outcomes import copy, outcome_of, refused, unavailable
from xmppd.core.sentagain import unless_sent_again
from xmppd.core.services import Services
from xmppd.core.sessions import LiveAccount, Session, Sessions
from xmppd.core.tally import owner_of
from xmppd.core.unheard import Unheard
from xmppd.core.unrecorded import asked, takers_of
from xmppd.errors import JidError, StanzaError, StoreError
from xmppd.hooks import DROP, Drop, Hooks, Outcome, Recorded
from xmppd.jid import Jid
from xmppd.xml import build
from xmppd.xml.stanza import Stanza

ASKED = 10
"""How often a plugin may have to find something out before it records a message."""

NOBODY_THERE = "nobody was there"
Became = Awaitable[Outcome | Drop]
Made = Recorded | Drop | Awaitable[None] | None
GoOn = Callable[..., Awaitable[None] | None]
"""What is done behind something that had to be waited for."""
Otherwise = Callable[[Stanza, Jid], Became | Outcome | None]
"""Takes a message that nobody keeps; None where nobody is there either."""


class Messages:
    """Delivers messages to the targets of this server, and hands those for other hosts to whoever answers for
    them.
    """

    def __init__(
        self,
        sessions: Sessions,
        accounts: Accounts,
        services: Services,
        blocks: Blocks,
        hooks: Hooks,
        domains: frozenset[str],
        now: Callable[[], float] = time.time,
    ) -> None:
        self.carbons = Carbons(sessions, now)
        self.fates = Fates(now)
        self.unheard = Unheard(sessions, accounts, blocks, hooks, domains, self.carbons, self.fates)
        self._blocks = blocks
        self._sessions = sessions
        self._targets = sessions.targets
        self._live = sessions.accounts
        self._accounts = accounts
        self._services = services
        self._hooks = hooks
        self._domains = domains
        self._on_turn = cast(Act, self._hand_on)
        self.foresee: Foresee | None = None

    def route(self, origin: Origin, stanza: Stanza) -> Awaitable[None] | None:
        """Deliver, keep or refuse (StanzaError) a message whose `from` is its true sender."""
        to = stanza.to
        if not (self._hooks.watches_messages or origin.has_copies):
            if self._is_given(stanza, to):
                return None
        elif self.foresee is not None and (intent := self._intent(origin, stanza)) is not None:
            return foreseen(origin, stanza, intent, unless_sent_again(origin, self._route))
        elif isinstance(origin, Session) and origin.line is not None and origin.line.is_ahead:
            return self._behind(origin, origin.line, stanza)
        return self._route(origin, stanza)

    def _intent(self, origin: Origin, stanza: Stanza) -> Intent | None:
        try:
            to = Jid.parse(stanza.to or origin.account)
        except JidError:
            return None
        assert self.foresee is not None
        return self.foresee(origin, stanza, to.bare) if self._is_account(to) else None

    def _is_given(self, stanza: Stanza, to: str | None) -> bool:
        """Whether a message was for somebody whose messages nobody has to be asked for, and was given to
        him.
        """
        receiver = self._targets.get(to)  # type: ignore[arg-type]
        if receiver is not None and receiver.is_open:
            receiver.send(stanza.raw)
            return True
        live = self._live.get(to)  # type: ignore[arg-type]
        if live is not None and live.targets and stanza.type in ("chat", None):
            targets = live.targets
            if len(targets) == 1:
                targets[0].send(stanza.raw)
            else:
                copy(targets, stanza.raw)
            return True
        return False

    def _route(self, origin: Origin, stanza: Stanza) -> Awaitable[None] | None:
        to = stanza.to
        if not to:  # RFC 6120 10.3.1
            to = origin.account
            stanza = Stanza("message", {**stanza.attrs, "to": to}, build.restamp(stanza, to=to))
        try:
            jid = Jid.parse(to)
        except JidError as error:
            raise StanzaError("jid-malformed", str(error)) from None
        if not self._is_account(jid):
            waiting = self._record(origin, stanza, jid)
            return waiting if waiting is not None else _end_of(self._deliver(origin, stanza, jid))
        blocks = self._blocks.load(jid.bare)
        if not isinstance(blocks, frozenset):
            return self._route_later(origin, stanza, jid, blocks, unless_sent_again(origin, self._to_account))
        return self._to_account(origin, stanza, jid, blocks)

    async def _route_later(
        self, origin: Origin, stanza: Stanza, to: Jid, loading: Awaitable[frozenset[str]], go_on: GoOn
    ) -> None:
        waiting = go_on(origin, stanza, to, await loading)
        if waiting is not None:
            await waiting

    def _to_account(
        self, origin: Origin, stanza: Stanza, to: Jid, blocks: frozenset[str]
    ) -> Awaitable[None] | None:
        """To an account with this block list. Whom it bars is told what he would be if nobody was there, and
        nobody kept messages.
        """
        if self._hooks.watches_messages:
            is_barred = bool(blocks) and bars(to.bare, blocks, origin.full)
            return self._watched(origin, stanza, to, is_barred=is_barred)
        return _end_of(self._deliver(origin, stanza, to))

    def reroute(self, origin: Origin, stanza: Stanza) -> Awaitable[None] | None:
        """Deliver, keep or refuse (StanzaError) a message that its receiver was sent and did not get. It is
        for the account, and whoever has a part in what becomes of messages was asked before.
        """
        return _end_of(self._hand_over(origin, stanza, Jid.parse(stanza.to or ""), is_again=True))

    # what is written down before it goes on

    def _behind(self, origin: Origin, line: Line, stanza: Stanza) -> Pending:
        """A message of somebody whose last ones still have to go on: it does so after them, but is written
        down as soon as these are. What filters, or the store, have to be asked for is so in its turn.
        """
        begin = partial(unless_sent_again(origin, self._begun), origin, stanza)
        act = partial(unless_sent_again(origin, self._route), origin, stanza)
        return line.behind(begin, act, len(stanza.raw))

    def _begun(self, origin: Origin, stanza: Stanza) -> Pending | Awaitable[None] | None:
        """See `Begin`: such a message, when all that were sent before it are begun."""
        try:
            to = Jid.parse(stanza.to or origin.account)
            is_settled = self.foresee is None and not self._hooks.message_for_filter
            if not (is_settled and self._is_open(origin, stanza, to)):
                return None
            made = self._record(origin, stanza, to)
            if made is None and self._is_settled(stanza, to):
                return Pending(partial(self._go_on, origin, stanza, to), len(stanza.raw))
        except Exception as error:  # noqa: BLE001 - he is told when it is its turn
            return Pending(partial(raised, error))
        return made

    def _is_settled(self, stanza: Stanza, to: Jid) -> bool:
        """Whether one of which nothing was to be written would not be later either."""
        return kind_of(stanza) not in KEEPABLE or self._is_taken(stanza, to) is True

    def _is_open(self, origin: Origin, stanza: Stanza, to: Jid) -> bool:
        """Whether it is known that nobody bars a message, which has its address."""
        live = self._live.get(to.bare)
        if live is not None and not live.blocks and stanza.to:
            return True  # as it is nearly always
        if not self._is_account(to):
            return True
        blocks = self._blocks.known(to.bare) if stanza.to else None
        return blocks is not None and not (blocks and bars(to.bare, blocks, origin.full))

    def _go_on(self, origin: Origin, stanza: Stanza, to: Jid, _: Pending) -> Awaitable[None] | None:
        """It is the turn of one of which nothing is written."""
        try:
            outcome = self._deliver(origin, stanza, to)
        except Exception as error:  # noqa: BLE001 - raised again when all have been told
            return self._refused(origin, stanza, to, error)
        return self._became(origin, stanza, to, outcome)

    def _record(
        self, origin: Origin, stanza: Stanza, to: Jid, *, is_barred: bool = False
    ) -> Pending | Awaitable[None] | None:
        """Have a message written down that will be taken, or `is_barred`; None if it is nothing to be."""
        hooks = self._hooks
        recorders = hooks.message_barred_record if is_barred else hooks.message_recorded_record
        if not recorders:
            return None if is_barred else self._unrecorded(origin, stanza, to, None)
        is_taken = self._is_taken(stanza, to)
        if is_taken is False:
            return None
        record = partial(recorders[0], is_refused=True) if is_barred else recorders[0]
        if is_taken is not True:
            return self._record_later(origin, stanza, to, is_taken, unless_sent_again(origin, record, DROP))
        made = record(origin, stanza, to)
        if made is None and not is_barred:
            return self._unrecorded(origin, stanza, to, None)
        if made is None or isinstance(made, Recorded) or isinstance(made, Drop):  # noqa: SIM101 - cheaper
            return self._pending(origin, stanza, to, made)
        return self._asked_again(origin, stanza, to, made, unless_sent_again(origin, record, DROP))

    def _unrecorded(self, origin: Origin, sent: Stanza, to: Jid, by: Recorded | None) -> Pending | None:
        """Have one kept until it is acknowledged that is recorded for nobody, or `by` its sender alone."""
        live, asks = self._live.get(to.bare), self._hooks.message_unrecorded_record
        if live is None or not (asks and takers_of(live, to)) or self._blocks.bars(to.bare, origin.full):
            return None  # as it nearly always is
        return self._pending(origin, sent, to, asked(asks, live, sent, to, by))

    async def _record_later(
        self, origin: Origin, stanza: Stanza, to: Jid, is_taken: Awaitable[bool], record: Callable[..., Made]
    ) -> None:
        """The same, where it is not known whether the account exists."""
        try:
            made = record(origin, stanza, to) if await is_taken else None
        except Exception as error:  # noqa: BLE001 - raised again when all have been told
            waiting = self._refused(origin, stanza, to, error)
            if waiting is not None:
                await waiting
        else:
            await self._asked_again(origin, stanza, to, made, record)

    async def _asked_again(
        self, origin: Origin, stanza: Stanza, to: Jid, made: Made, record: Callable[..., Made]
    ) -> None:
        """The same, when all is known that has to be."""
        try:
            for _ in range(ASKED):
                if made is None or isinstance(made, Recorded | Drop):
                    break
                await made
                made = record(origin, stanza, to)
            else:
                raise StanzaError("resource-constraint", "The server cannot archive this now.", type="wait")
            waiting: Awaitable[None] | None = self._pending(origin, stanza, to, made)
            waiting = waiting or self._unrecorded(origin, stanza, to, None)
            if waiting is None:
                waiting = self._became(origin, stanza, to, self._deliver(origin, stanza, to))
        except Exception as error:  # noqa: BLE001 - raised again when all have been told
            waiting = self._refused(origin, stanza, to, error)
        if waiting is not None:
            await waiting

    def _pending(
        self, origin: Origin, stanza: Stanza, to: Jid, made: Recorded | Drop | None
    ) -> Pending | None:
        if made is None:
            return None
        if isinstance(made, Recorded):
            made.origin = origin
            made.sent = stanza
            made.to = to
            made.act = self._on_turn
            return made
        return Pending(lambda _: self._became(origin, stanza, to, outcome_of(made)))

    def _is_taken(self, stanza: Stanza, to: Jid) -> bool | Awaitable[bool]:
        """Whether a message will be delivered or kept, as far as that can be said without doing it. What a
        host makes of it is known when it has it.
        """
        kind = kind_of(stanza)
        if kind not in KEEPABLE:
            return False
        if to.resource and kind == "normal" and self._is_account(to):
            if self._is_hidden(stanza.attrs.get("from", "").partition("/")[0], to, kind):
                return False
            return to.full in self._targets or self._sessions.cluster.has(to.full)
        if to.bare in self._live:
            return True
        return self._accounts.exists(to.bare) if self._is_account(to) else self._is_served(to)

    def _hand_on(self, recorded: Recorded) -> Awaitable[None] | None:
        """What was written down goes to whoever is there now."""
        origin = recorded.origin
        to = recorded.to
        stanza = recorded.message
        if recorded.is_followed and recorded.held_up():
            recorded.act = self._on_turn
            return recorded
        if recorded.is_half and (more := self._unrecorded(origin, recorded.sent, to, recorded)) is not None:
            return more
        try:
            if recorded.error is not None:
                raise recorded.error
            if origin.has_copies:
                self._copy_sent(origin, recorded.sent, recorded.sent_id)
            outcome = self._hand_over(origin, stanza, to)
        except Exception as error:  # noqa: BLE001 - raised again when all have been told
            if recorded.is_followed:
                recorded.ended(False)
            return self._refused(origin, stanza, to, error)
        finally:
            recorded.shown()
        if recorded.is_followed:
            if isinstance(outcome, Outcome) or not self._is_account(to):  # no session is given it
                recorded.ended(True)
            else:
                outcome = watched(outcome, recorded.ended)
        return self._became(origin, stanza, to, outcome)

    # what becomes of a message for an account

    def _watched(self, origin: Origin, stanza: Stanza, to: Jid, *, is_barred: bool) -> Awaitable[None] | None:
        """Ask the filters of the account first, unless the sender `is_barred`, and tell afterwards what
        became of it.
        """
        hooks = self._hooks
        try:
            if is_barred:
                if (made := self._record(origin, stanza, to, is_barred=True)) is not None:
                    return made
                self._copy_sent(origin, stanza)
                return self._tell(origin, stanza, to, refused(stanza, to, self.fates))
            kept = hooks.filtered(hooks.message_for_filter, to.bare, stanza)
            if isinstance(kept, Stanza):
                stanza = kept
                if (made := self._record(origin, kept, to)) is not None:
                    return made
                outcome = self._deliver(origin, kept, to)
            elif isinstance(kept, Awaitable):
                go_on = unless_sent_again(origin, self._kept)
                return self._watched_later(origin, stanza, to, kept, go_on)
            else:
                outcome = self._filtered(stanza, kept)
        except Exception as error:  # noqa: BLE001 - raised again when all have been told
            return self._refused(origin, stanza, to, error)
        return self._became(origin, stanza, to, outcome)

    async def _watched_later(
        self, origin: Origin, stanza: Stanza, to: Jid, filtering: Awaitable[Stanza | Drop], go_on: GoOn
    ) -> None:
        try:
            kept = await filtering
            stanza = kept if isinstance(kept, Stanza) else stanza
            waiting = go_on(origin, stanza, to, kept)
        except Exception as error:  # noqa: BLE001 - raised again when all have been told
            waiting = self._refused(origin, stanza, to, error)
        if waiting is not None:
            await waiting

    def _kept(self, origin: Origin, stanza: Stanza, to: Jid, kept: Stanza | Drop) -> Awaitable[None] | None:
        """What the filters of its receiver left of it goes on."""
        if not isinstance(kept, Stanza):
            return self._became(origin, stanza, to, self._filtered(stanza, kept))
        made = self._record(origin, kept, to)
        return made if made is not None else self._became(origin, kept, to, self._deliver(origin, kept, to))

    def _filtered(self, stanza: Stanza, became: Drop) -> Outcome:
        """A filter of the receiver's ended it."""
        return self._ended(stanza, became, self._hooks.ended_by, "a filter of what is received ended it")

    def _ended(self, stanza: Stanza, became: Drop, rule: str, why: str) -> Outcome:
        outcome = outcome_of(became)
        self.fates.note(stanza, IS_KEPT if outcome is Outcome.KEPT else DROPPED, rule, why)
        return outcome

    def _became(
        self, origin: Origin, stanza: Stanza, to: Jid, outcome: Outcome | Became
    ) -> Awaitable[None] | None:
        """Tell what became of it, as soon as that is known."""
        signals = self._hooks.message_routed_signal
        if isinstance(outcome, Outcome):
            if not (signals and self._is_account(to)):
                return None
            return self._hooks.tell(signals, origin, stanza, to.bare, outcome)
        if isinstance(outcome, Later) and not signals:
            return outcome
        told = self._told_later(origin, stanza, to, outcome)
        return Later(told) if isinstance(outcome, Later) else told

    async def _told_later(self, origin: Origin, stanza: Stanza, to: Jid, outcome: Outcome | Became) -> None:
        try:
            became = outcome if isinstance(outcome, Outcome) else outcome_of(await outcome)
        except Exception as error:  # noqa: BLE001 - raised again when all have been told
            waiting = self._refused(origin, stanza, to, error)
        else:
            waiting = self._tell(origin, stanza, to, became)
        if waiting is not None:
            await waiting

    def _refused(self, origin: Origin, stanza: Stanza, to: Jid, error: Exception) -> Awaitable[None] | None:
        """Tell of it, then raise the error."""
        waiting = self._tell(origin, stanza, to, Outcome.REFUSED)
        if waiting is None:
            raise error
        return failing(waiting, error)

    def _tell(self, origin: Origin, stanza: Stanza, to: Jid, outcome: Outcome) -> Awaitable[None] | None:
        """Tell what became of a message for an account."""
        if not self._is_account(to):
            return None
        return self._hooks.tell(self._hooks.message_routed_signal, origin, stanza, to.bare, outcome)

    def _deliver(self, origin: Origin, stanza: Stanza, to: Jid) -> Outcome | Became:
        """Hand it over, and copies of it to the other devices of its sender."""
        self._copy_sent(origin, stanza)
        return self._hand_over(origin, stanza, to)

    def _copy_sent(self, origin: Origin, stanza: Stanza, sent_id: str = "") -> None:
        if origin.has_copies and isinstance(origin, Session):
            self.carbons.sent(origin, stanza, sent_id)

    def _copy_received(
        self, live: LiveAccount | None, stanza: Stanza, got: Sequence[Target], *, is_stored: bool = False
    ) -> None:
        """Send copies to those of an account of this node alone who are not given a message; None: nobody
        wants any.
        """
        if live is not None and (copies := self.carbons.received(live.account, live, stanza)) is not None:
            give(copies, live, got, is_stored=is_stored)

    def _hand_over(
        self, origin: Origin, stanza: Stanza, to: Jid, *, is_again: bool = False
    ) -> Outcome | Became:
        """By the table, unless the account bars its sender by now; or a host's. `is_again`: it was copied."""
        if self._is_given(stanza, to.full):
            return Outcome.DELIVERED
        if not self._is_account(to):
            return self._to_host(origin, stanza, to)
        if self._blocks.bars(to.bare, origin.full):
            return refused(stanza, to, self.fates)
        kind = kind_of(stanza)
        if self._is_hidden(origin.account, to, kind):
            return self._to_absent(stanza, to, kind)
        if self._sessions.cluster.concerns(to.bare):
            return self._sessions.cluster.message(origin, stanza, to, kind, is_again=is_again)
        live = self._live.get(to.bare)
        copied = None if is_again or live is None or not live.carbons else live
        receiver = self._targets.get(to.full) if to.resource else None
        if receiver is not None:
            if not receiver.takes_messages and kind in KEEPABLE:
                self._copy_received(copied, stanza, (receiver, *flushing(copied)))
                return self.keep(to, stanza)
            receiver.send(stanza.raw)
            self._copy_received(copied, stanza, (receiver,))
            return Outcome.DELIVERED
        receivers: Sequence[Target] = ()
        match action_of(to, kind, is_ready=live is not None and bool(live.takers or kind not in KEEPABLE)):
            case Action.TOP if live is not None:
                receivers = live.takers
            case Action.ALL if live is not None:
                receivers = tuple(s for s in live.available if s.priority >= 0)
            case Action.STORE:
                self._copy_received(copied, stanza, (), is_stored=True)
                return self.keep(to, stanza)
            case Action.REFUSE:
                raise unavailable()
            case _:
                self.fates.note(stanza, DROPPED, "rfc6121-8.5", f"a {kind} that nobody is there for")
                return Outcome.DROPPED
        copy(receivers, stanza.raw)
        self._copy_received(copied, stanza, receivers)
        return Outcome.DELIVERED

    def _is_hidden(self, sender: str, to: Jid, kind: str) -> bool:
        """Whether the account looks offline to a sender who would be told what becomes of such a message."""
        hidden = self._blocks.hidden
        return bool(hidden) and kind in FELT and hidden.has(to.bare, sender)

    def _to_absent(self, stanza: Stanza, to: Jid, kind: str) -> Outcome | Became:
        """To one that looks offline: as if nobody was there. Whoever keeps it has it handed over."""
        if action_of(to, kind, is_ready=False) is not Action.STORE:
            raise unavailable()
        live = self._live.get(to.bare)
        self._copy_received(live, stanza, live.takers if live is not None else ())
        return self.keep(to, stanza)

    # to a host

    def _is_account(self, to: Jid) -> bool:
        return to.domain in self._domains and bool(to.local)

    def _is_served(self, host: Jid) -> bool:
        """Whether anybody answers for an address that is no account's."""
        if host.domain in self._domains:
            return bool(self._hooks.server_message_filter)
        return host.domain in self._services

    def _to_host(self, origin: Origin, stanza: Stanza, to: Jid) -> Outcome | Became:
        """To an address that is no account's."""
        if to.domain not in self._domains:
            waiting = self._services.take(origin, stanza, to)
        elif self._is_served(to):
            waiting = self._offer(origin, stanza)
        else:
            raise unavailable()
        if waiting is None:
            return Outcome.DELIVERED
        return waiting if isinstance(waiting, Later) else giving(waiting, Outcome.DELIVERED)

    async def _offer(self, origin: Origin, stanza: Stanza) -> None:
        """Give plugins a message to the server itself; nobody else takes such (RFC 6120 10.5.2)."""
        for take in self._hooks.server_message_filter:
            result = take(origin, stanza)
            if isinstance(result, Awaitable):
                result = await result
            if isinstance(result, Drop):
                return
            stanza = result
        raise unavailable()

    def keep(self, to: Jid, stanza: Stanza, otherwise: Otherwise | None = None) -> Outcome | Became:
        """Offer a message for nobody to the plugins that keep such; durable when this is done (XEP-0160).
        `otherwise` takes one that nobody keeps, for whoever is on other nodes.
        """
        kept = self.keep_in_order(to, stanza, otherwise)
        return kept if isinstance(kept, Outcome | Later) else settled(kept)

    def keep_in_order(
        self, to: Jid, stanza: Stanza, otherwise: Otherwise | None = None
    ) -> Outcome | Awaitable[Outcome | Drop | Later]:
        """The same; what had to wait gives a Later as soon as its place is settled, and its end is left."""
        cluster = self._sessions.cluster
        kept = begun(self._claimed(to, stanza, otherwise or cluster.unclaimed))
        if isinstance(kept, Outcome):
            if kept is Outcome.KEPT and (told := cluster.kept(to.bare, to.resource)) is not None:
                return giving(told, kept)
            return kept
        if isinstance(kept, Later):
            return cluster.keeping(to, kept)
        return self._kept_at_last(to, kept)

    async def _kept_at_last(self, to: Jid, kept: Awaitable[Outcome | Later]) -> Outcome | Later:
        cluster = self._sessions.cluster
        try:
            became = await kept
        except StoreError:  # it may be there all the same
            cluster.kept(to.bare, to.resource)
            raise
        if isinstance(became, Later):
            return cluster.keeping(to, became)
        if became is Outcome.KEPT and (told := cluster.kept(to.bare, to.resource)) is not None:
            await told
        return became

    async def _claimed(self, to: Jid, stanza: Stanza, otherwise: Otherwise) -> Outcome | Later:
        account = to.bare
        exists = self._accounts.exists(account)
        if not (exists if isinstance(exists, bool) else await exists):
            raise unavailable()
        for claim in self._hooks.message_unclaimed_filter:
            result = claim(account, stanza)
            if not isinstance(result, Stanza | Drop | Later):
                result = await result
            if isinstance(result, Drop):
                return self._ended(stanza, result, owner_of(claim), NOBODY_THERE)
            if isinstance(result, Later):
                self.fates.note(stanza, IS_KEPT, owner_of(claim), NOBODY_THERE)
                return result
            stanza = result
        if await self._blocks.will_bar(account, stanza.attrs.get("from", "")):
            return refused(stanza, to, self.fates)  # since we asked
        if self._is_hidden(stanza.attrs.get("from", "").partition("/")[0], to, kind_of(stanza)):
            raise unavailable()
        # Somebody came while we asked; or this is nothing to be kept, and is not to be held back either.
        if (receiver := self._targets.get(to.full)) is not None:
            receiver.send(stanza.raw)
            return Outcome.DELIVERED
        live = self._live.get(account)
        present = live.takers if live is not None else ()
        if not present:
            if (sending := otherwise(stanza, to)) is not None:
                return sending if isinstance(sending, Outcome) else outcome_of(await sending)
            present = tuple(s for s in live.available if s.priority >= 0) if live is not None else ()
        if not present:
            raise unavailable()
        copy(present, stanza.raw)
        return Outcome.DELIVERED


def _end_of(outcome: Outcome | Became) -> Awaitable[None] | None:
    """What has to be awaited of it."""
    if isinstance(outcome, Outcome):
        return None
    return outcome if isinstance(outcome, Later) else _forget(outcome)


async def _forget(outcome: Became) -> None:
    await outcome
