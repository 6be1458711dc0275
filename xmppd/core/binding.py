"""Binding resources: names, conflicts, limits, and the end of a session (RFC 6120 7)."""

from __future__ import annotations

import base64
import hashlib
import logging
import secrets
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from xmppd.core.barred import NOBODY, Asked
from xmppd.core.blocks import Blocks
from xmppd.core.output import Connection
from xmppd.core.presence import Presences
from xmppd.core.sessions import Session, Sessions
from xmppd.errors import JidError, StanzaError, StreamError
from xmppd.hooks import Hooks
from xmppd.jid import MAX_BYTES, prepare_resource
from xmppd.stream.sasl import Login

log = logging.getLogger(__name__)

REPLACED = "Replaced by a new connection."

ID_BYTES = 9
"""Of the identifier that tells clients of an account apart."""

LETTERS = 3
"""Of a language."""

SHUTDOWN = "system-shutdown"
"""Why sessions end with their node, so that their clients come back to another one."""

MOVED = frozenset({SHUTDOWN, "see-other-host"})
"""The same, and where that one is named."""

Spawn = Callable[[Coroutine[Any, Any, None]], object]
"""Runs a coroutine in the background; whoever provides it keeps the task and logs its failure."""


@dataclass(frozen=True, slots=True)
class BindingRules:
    """`replace` lets a newcomer take over a resource in use (RFC 6120 7.7.2.2); else it is given another
    name.
    """

    replace: bool = True
    sessions_per_account: int = 10


class Binding:
    """Opens and ends the sessions of this node."""

    def __init__(
        self,
        sessions: Sessions,
        presences: Presences,
        blocks: Blocks,
        hooks: Hooks,
        spawn: Spawn,
        rules: BindingRules,
    ) -> None:
        self._sessions = sessions
        self._presences = presences
        self._blocks = blocks
        self._hooks = hooks
        self._spawn = spawn
        self.rules = rules

    def bind(
        self,
        login: Login,
        wanted: str,
        connection: Connection,
        lang: str,
        *,
        client: str = "",
    ) -> Session:
        """A new session; `wanted` may be empty, and counts for nothing in a login that is `unnamed`.
        StanzaError resource-constraint (RFC 6120 7.6.2.1). With the identifier of a `client` the resource is
        of that one alone, and its other sessions end, too, those on other nodes when these hear of this one.

        `Logins.confirm` comes right before it: after that the block list of the account is known.
        """
        account = login.account
        blocks = self._blocks.known(account) if login.tenure is not None else NOBODY
        if blocks is None:
            raise StanzaError("resource-constraint", "It is not known whom this account blocks.")
        chosen = conforming(wanted)
        if login.unnamed:
            chosen, lang = client, language_of(lang)
        resource = chosen or secrets.token_urlsafe(9)
        full, cluster = f"{account}/{resource}", self._sessions.cluster
        if client and login.agent is not None and login.agent.id:
            self._end_those_of(account, login.agent.id)
        held = self._sessions.by_full.get(full)
        replaces = bool(client) or self.rules.replace
        if held is not None and replaces:
            self.end(held, StreamError("conflict", REPLACED))
        elif not replaces and (held is not None or cluster.has(full)):
            resource = f"{resource[:200]}-{secrets.token_urlsafe(6)}"
        count = len(self._sessions.of(account)) + cluster.count_beside(account, resource, client)
        if count >= self.rules.sessions_per_account:
            raise StanzaError("resource-constraint", "This account has too many sessions.")
        if account in self._blocks.hidden:
            blocks = Asked(blocks)
        session = self._sessions.add(login, resource, connection, lang, blocks)
        cluster.bound(session)
        return session

    def _end_those_of(self, account: str, client: str) -> None:
        """End the account's sessions of the client with this id of a user-agent (XEP-0386 3.2)."""
        for session in self._sessions.of(account):
            agent = session.login.agent
            if agent is not None and agent.id == client:
                self.end(session, StreamError("conflict", REPLACED))

    def sessions(self) -> list[Session]:
        """All that are not over."""
        return list(self._sessions.by_full.values())

    def announce(self, session: Session) -> Awaitable[None] | None:
        """Tell the plugins of a new session; it may have to be waited for."""
        return self._hooks.tell(self._hooks.session_bound_signal, session)

    def resumed(self, session: Session) -> Awaitable[None] | None:
        """Tell them of one of another node that goes on here; it may have to be waited for."""
        return self._hooks.tell(self._hooks.session_resumed_signal, session)

    def returned(self, session: Session) -> None:
        """Tell them of one whose client has resumed it and knows that."""
        self._hooks.tell(self._hooks.session_returned_signal, session)

    def given_up(self, session: Session, node: str | None) -> None:
        """Tell them that a client sends again what is still under way: see the hook `stanzas_given_up`."""
        self._hooks.tell(self._hooks.stanzas_given_up_signal, session, node)

    def want_copies(self, session: Session, wants: bool) -> None:
        """Whether the session is sent copies of its account's messages from now on (XEP-0280)."""
        self._sessions.want_copies(session, wants)

    def end(self, session: Session, error: StreamError | None = None) -> None:
        """End a session: unavailable presence goes out, the stream is closed, the resource is free. Harmless
        if repeated.
        """
        if session.is_over:
            return
        reason = session.reason = error.condition if error is not None else "closed"
        is_moved = reason in MOVED and self._sessions.cluster.has_grace
        told = None
        try:
            told = self._presences.lost(session, is_moved=is_moved)
            session.flush()
        except Exception:  # a ghost would be worse
            log.exception("session-ended-badly", extra={"jid": session.full})
        connection = session.connection
        log.info("logout", extra={"jid": session.full, "peer": session.login.peer, "reason": reason})
        self._sessions.remove(session)
        if told is None:
            self._sessions.cluster.ended(session)
        else:
            told.add_done_callback(lambda _: self._sessions.cluster.ended(session))
        connection.close(error)
        if self._hooks.session_closed_signal:
            self._spawn(self._close(session, told))

    async def _close(self, session: Session, told: Awaitable[None] | None) -> None:
        if told is not None:
            await told
        await self._hooks.tell_in_order(self._hooks.session_closed_signal, session)


def conforming(wanted: str) -> str:
    """The resource that is wanted, cut when it is too long; "" when it cannot be one (RFC 6120 7.7.2.1)."""
    if not wanted:
        return ""
    short = wanted if len(wanted) <= MAX_BYTES // 4 else wanted.encode()[:MAX_BYTES].decode(errors="ignore")
    try:
        return prepare_resource(short)
    except JidError:
        return ""


def language_of(lang: str) -> str:
    """The language itself of a tag (RFC 5646 2.2.1), in two or three letters; "" where it has none."""
    language = lang.partition("-")[0]
    return language if len(language) <= LETTERS and language.isascii() and language.isalpha() else ""


def identifier_of(account: str, client: str) -> str:
    """What stands behind the tag in the resources of one installation and account: always the same, and
    tells nothing of either (XEP-0386 3.2.1).
    """
    digest = hashlib.sha256(f"{account}\0{client}".encode()).digest()
    return base64.urlsafe_b64encode(digest[:ID_BYTES]).decode()


def client_of(login: Login, resource: str) -> str:
    """The identifier of a client whose resource ends with it, "" for one that has told no id, or has bound
    one by another name.
    """
    agent = login.agent
    if agent is None or not agent.id:
        return ""
    identifier = identifier_of(login.account, agent.id)
    return identifier if is_of(identifier, resource) else ""


def is_of(client: str, resource: str) -> bool:
    """Whether a resource is one of the client with this identifier ("": of none), by whatever tag."""
    return bool(client) and resource.rpartition(".")[2] == client
