"""Messages that a filter ended, and whose senders are to take them for sent: what one sees of a message that
is delivered he sees of these, and nobody else sees anything.
"""

from __future__ import annotations

from collections.abc import Awaitable
from functools import partial

from xmppd.core.accounts import Accounts
from xmppd.core.blocks import Blocks
from xmppd.core.carbons import Carbons
from xmppd.core.delivery import KEEPABLE, Action, action_of, kind_of
from xmppd.core.fates import Fates
from xmppd.core.foreseen import Foresee
from xmppd.core.intents import around
from xmppd.core.later import Pending
from xmppd.core.outcomes import refused, unavailable
from xmppd.core.sentagain import era_of, is_sent_again
from xmppd.core.sessions import Session, Sessions
from xmppd.errors import JidError, StanzaError
from xmppd.hooks import Hooks, Outcome, Recorded
from xmppd.jid import Jid
from xmppd.xml.stanza import Stanza

ASKED = 10
"""How often a plugin may have to find something out before it records a message."""


class Unheard:
    """Takes them in the place of delivery."""

    def __init__(
        self,
        sessions: Sessions,
        accounts: Accounts,
        blocks: Blocks,
        hooks: Hooks,
        domains: frozenset[str],
        carbons: Carbons,
        fates: Fates,
    ) -> None:
        self._sessions = sessions
        self._accounts = accounts
        self._blocks = blocks
        self._hooks = hooks
        self._domains = domains
        self._carbons = carbons
        self._fates = fates
        self.foresee: Foresee | None = None

    def take(self, session: Session, stanza: Stanza) -> Awaitable[None]:
        """Record a message for its sender alone, and copy it to his other devices, after those that he sent
        before; StanzaError where it would be refused if it was delivered.
        """
        line = session.line
        if line is not None and line.is_ahead:
            return line.in_turn(partial(self._take, session, stanza, era_of(session)), len(stanza.raw))
        return self._take(session, stanza, era_of(session))

    async def _take(self, session: Session, stanza: Stanza, era: int) -> None:
        try:
            to = Jid.parse(stanza.to or session.account)
        except JidError as error:
            raise StanzaError("jid-malformed", str(error)) from None
        if to.domain not in self._domains or not to.local:
            return  # whatever a host would say of it
        if not await self._is_accepted(session, stanza, to):
            return
        async with around(self.foresee and self.foresee(session, stanza, to.bare), {}):
            if is_sent_again(session, era):
                return
            await self._record(session, stanza, to, era)
            signals = self._hooks.message_routed_signal
            await self._hooks.tell_in_order(signals, session, stanza, to.bare, Outcome.DROPPED)

    async def _is_accepted(self, session: Session, stanza: Stanza, to: Jid) -> bool:
        """Whether it would be delivered or kept, not dropped; StanzaError where it would be refused."""
        if await self._blocks.will_bar(to.bare, session.full):
            self._carbons.sent(session, stanza)
            refused(stanza, to, self._fates)
            return False
        sessions, kind = self._sessions, kind_of(stanza)
        if to.resource and (to.full in sessions.targets or sessions.cluster.has(to.full)):
            return True
        is_ready = (sessions.takes_messages if kind in KEEPABLE else sessions.is_available)(to.bare)
        action = action_of(to, kind, is_ready=is_ready)
        if action is Action.STORE:
            exists = self._accounts.exists(to.bare)
            is_there = exists if isinstance(exists, bool) else await exists
            action = action if is_there and self._hooks.message_unclaimed_filter else Action.REFUSE
        if action is Action.REFUSE:
            raise unavailable()
        return action is not Action.IGNORE

    async def _record(self, session: Session, stanza: Stanza, to: Jid, era: int) -> None:
        """Have it written down for its sender, and then copied."""
        made = None
        for record in self._hooks.message_barred_record:
            for _ in range(ASKED):
                made = record(session, stanza, to, is_refused=False)
                if not isinstance(made, Awaitable) or isinstance(made, Recorded):
                    break
                await made
                if is_sent_again(session, era):
                    return
        if not isinstance(made, Recorded):
            self._copy(session, stanza)
            return
        made.origin, made.sent, made.to = session, stanza, to
        made.act = self._recorded
        await made

    def _recorded(self, recorded: Pending) -> Awaitable[None] | None:
        """It is its turn."""
        assert isinstance(recorded, Recorded) and isinstance(recorded.origin, Session)
        if recorded.is_followed and recorded.held_up():
            recorded.act = self._recorded
            return recorded
        try:
            if recorded.error is not None:
                raise recorded.error
            self._copy(recorded.origin, recorded.sent, recorded.sent_id)
        finally:
            recorded.shown()
            if recorded.is_followed:
                recorded.ended(recorded.error is None)
        return None

    def _copy(self, session: Session, stanza: Stanza, id: str = "") -> None:
        if session.has_copies:
            self._carbons.sent(session, stanza, id)
