"""The server as plugins see it: what they may ask and do, and no more."""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, NoReturn
from xml.etree.ElementTree import Element

from xmppd.admin.registry import Commands
from xmppd.core.accounts import Accounts
from xmppd.core.blocking import Blocking
from xmppd.core.cluster import ONE_NODE
from xmppd.core.disco import Disco
from xmppd.core.events import Events
from xmppd.core.expiry import Expiry
from xmppd.core.friendships import Friendships
from xmppd.core.handover import Handover
from xmppd.core.hidden import Away, Recall
from xmppd.core.holds import Hold, HoldMany
from xmppd.core.ids import Ids
from xmppd.core.logins import Logins
from xmppd.core.origin import Target
from xmppd.core.presence import Presences
from xmppd.core.resumption import Resumption
from xmppd.core.router import Router
from xmppd.core.sending import Sending
from xmppd.core.services import Services
from xmppd.core.sessions import Session, Sessions
from xmppd.core.visibility import Visibility
from xmppd.errors import SaslError, StreamError
from xmppd.hooks import Hooks
from xmppd.nodes import Nodes
from xmppd.parts.http import HttpClient
from xmppd.parts.keysets import KeySet
from xmppd.parts.metrics import Metric
from xmppd.parts.offers import Offers
from xmppd.scope import Scope
from xmppd.store.table import Store
from xmppd.stream.rows import Negotiable
from xmppd.stream.sasl import Channel, Identity, Login
from xmppd.xml import build


class Server:
    """One running server. `now` gives seconds since the epoch, `clock` seconds that only rise; `ids` those of
    what is kept in the order of time; `commands` are those of operators; `metrics` the plugins' own by name;
    `scope` makes what the tasks and timers of one instance of a plugin belong to.
    """

    def __init__(
        self,
        *,
        store: Store,
        commands: Commands,
        accounts: Accounts,
        rosters: Friendships,
        blocks: Blocking,
        visibility: Visibility,
        presences: Presences,
        sessions: Sessions,
        resumption: Resumption,
        handover: Handover,
        router: Router,
        sending: Sending,
        disco: Disco,
        services: Services,
        end_session: Callable[[Session, StreamError | None], None],
        expiry: Expiry,
        logins: Logins,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        now: Callable[[], float],
        clock: Callable[[], float],
        ids: Ids,
        domains: frozenset[str],
        name: str,
        version: str,
        contact_addresses: Mapping[str, tuple[str, ...]],
        nodes: Nodes,
        scope: Callable[[], Scope],
        left: Callable[[str], None],
        hooks: Hooks,
        lock: Callable[[str], AbstractAsyncContextManager[None]],
        events: Events,
        whose_client: Callable[[Collection[str], Sequence[str]], Awaitable[set[str]]],
    ) -> None:
        self.store = store
        self.commands = commands
        self.accounts = accounts
        self.rosters = rosters
        self.blocks = blocks
        self.spawn = spawn
        self.now = now
        self._clock = clock
        self.ids = ids
        self.domains = domains
        self.name = name
        self.version = version
        self.contact_addresses = contact_addresses
        self.started = now()
        self.nodes = nodes
        self.scope = scope
        self._lock = lock
        self.events = events
        self._whose_client = whose_client
        self._left = left
        self._hooks = hooks
        self.metrics: dict[str, Metric] = {}
        self.offers = Offers()
        self._visibility = visibility
        self._presences = presences
        self._sessions = sessions
        self._resumption = resumption
        self._handover = handover
        self.services = services
        self._router = router
        self._sending = sending
        self.disco = disco
        self._end_session = end_session
        self._expiry = expiry
        self._logins = logins

    # who is here

    def sessions(self, account: str) -> list[Session]:
        """The account's sessions on this node, available or not."""
        return self._sessions.of(account)

    def session(self, full: str) -> Session | None:
        """The session with this full JID, if it is on this node."""
        return self._sessions.by_full.get(full)

    def locate(self, account: str) -> tuple[Target, ...]:
        """The available resources of an account wherever they are."""
        live = self._sessions.accounts.get(account)
        here = live.available if live is not None else ()
        return (*here, *self._sessions.cluster.targets(account))

    def resources(self, account: str) -> set[str]:
        """Those of all sessions of an account wherever they are, available or not."""
        here = (session.resource for session in self._sessions.of(account))
        return {*here, *self._sessions.cluster.resources(account)}

    def takes_messages(self, account: str) -> bool:
        """Whether a message to the account would be delivered at once: it has an available resource of
        priority >= 0.
        """
        return self._sessions.takes_messages(account)

    def online(self) -> Iterable[Session]:
        """All sessions of this node, as they are now."""
        return tuple(self._sessions.by_full.values())

    async def with_client(self, accounts: Collection[str], texts: Sequence[str]) -> set[str]:
        """Those of the accounts that have an available session, on whatever node, by a client of which one of
        the texts is in a name: of its software or device, its resource, or the node of its capabilities.
        """
        return await self._whose_client(accounts, texts)

    def is_connected(self, account: str) -> bool:
        """Whether the account has a session on whatever node, available or not."""
        return account in self._sessions.accounts or bool(self._sessions.cluster.nodes_of(account))

    def connected(self) -> set[str]:
        """All accounts that have a session on whatever node, available or not."""
        return {*self._sessions.accounts, *self._sessions.cluster.accounts()}

    @property
    def has_other_nodes(self) -> bool:
        """Whether this may be one of several nodes, which share the store."""
        return self._sessions.cluster is not ONE_NODE

    @property
    def node(self) -> str:
        """The name of this node among several; "" where it is alone."""
        return self.nodes.name

    def other_nodes(self) -> Sequence[str]:
        """The names of all others that are there."""
        return self._sessions.cluster.names()

    def hears_all_nodes(self) -> bool:
        """Whether all of them are connected and were heard lately: one that is not may be lost."""
        return self._sessions.cluster.hears_all()

    def runs(self, node: str, plugin: str) -> bool:
        """Whether a plugin of this name is at work on one of them; it may be until that has said so."""
        return self._sessions.cluster.runs(node, plugin)

    def nodes_of(self, account: str) -> Sequence[str]:
        """The names of those of them where the account has sessions, available or not."""
        return self._sessions.cluster.nodes_of(account)

    @property
    def process(self) -> str:
        """A random name of this process. The id of a session that began here begins with it."""
        return self._resumption.process

    def resumption_id(self, session: Session) -> str:
        """The id by which the session is resumed (XEP-0198 5); "" when it may not be, or is on another node
        now.
        """
        managed = session.managed
        return "" if managed is None or managed.is_given else str(managed.id)

    def acknowledges(self, session: Session) -> bool:
        """Whether its client acknowledges what it is sent (XEP-0198)."""
        return session.managed is not None

    def waiting(self, second: int) -> Sequence[Session]:
        """The sessions whose clients acknowledge, but not all that they were sent up to that second since the
        epoch.
        """
        return self._resumption.waiting(second)

    def unacknowledged(self, session: Session) -> Sequence[bytes]:
        """What the session was sent and its client has not acknowledged, in order; nothing for one without
        stream management.
        """
        found: Sequence[bytes] = () if session.managed is None else session.managed.unacked
        return found

    def when_had(self, session: Session, stanza: bytes, told: Callable[[bool], None]) -> bool:
        """Have it told, with True, when the client has acknowledged a stanza that the session is about to be
        sent, and that is kept for its account until then; with False if it does not while the session is
        here. False where no client acknowledges anything: then nobody is told.
        """
        managed = session.managed
        if managed is None or not managed.is_kept:
            return False
        managed.when_had(stanza, told, is_stored=True)
        return True

    def stored(self, session: Session) -> Mapping[int, bytes]:
        """Of what such a session was sent on another node, and its client has not acknowledged, that which is
        kept for its account: by numbers for `when_stored_had`.
        """
        return {} if session.managed is None else dict(session.managed.stored())

    def when_stored_had(self, session: Session, number: int, told: Callable[[bool], None]) -> None:
        """The same as `when_had` for one of those."""
        if session.managed is not None:
            session.managed.when_stored_had(number, told)

    def has_moved(self, session: Session) -> bool:
        """Whether a session is on another node now."""
        return session.managed is not None and bool(session.managed.is_given)

    def given_away(self) -> Iterator[tuple[str, bytes]]:
        """The same of sessions that other nodes were given a moment ago and have not said to have: accounts
        and stanzas.
        """
        return self._handover.given()

    def keeps(self, id: str) -> bool:
        """Whether a session of a node that stopped is kept here for its client: see `session_kept`."""
        return self._handover.keeps(id)

    async def account_exists(self, account: str) -> bool:
        """Whether there is such an account."""
        exists = self.accounts.exists(account)
        return exists if isinstance(exists, bool) else await exists

    async def may_see(self, viewer: str, account: str) -> bool:
        """Whether `viewer` may know of the account's presence: itself, or subscribed from/both (RFC 6121
        8.5.3.1).
        """
        return await self._visibility.may_see(viewer, account)

    # what can be done

    def want_copies(self, session: Session, wants: bool) -> None:
        """Whether a session is sent copies of what others of its account send and receive (XEP-0280)."""
        self._sessions.want_copies(session, wants)

    def keep_detached(self, session: Session, seconds: float | None) -> None:
        """For how long a session waits for its client when the connection breaks, if that may resume it
        (XEP-0198 5); None: as all others.
        """
        self._resumption.keep_for(session, seconds)

    def messages_left(self, account: str) -> None:
        """Messages are kept for an account which may have sessions that take them: have the hook
        `messages_kept` told of those of the highest priority, on whatever node, and of others beside them.
        """
        self._left(account)

    def watch_unrecorded(self, *, is_on: bool) -> None:
        """Whether the hook `message_unrecorded` is told of messages where no plugin records any."""
        self._hooks.watch_unrecorded(is_on=is_on)

    @property
    def recalls(self) -> bool:
        """Whether a plugin gives back messages that it recorded."""
        return bool(self._hooks.messages_recalled_recall)

    async def recall(
        self, account: str, ids: Sequence[str], session: Session | None = None
    ) -> Mapping[str, bytes]:
        """Messages that the account was sent, by the ids by which they were recorded (XEP-0359), stamped:
        without those that are not there any more, and those that the session asked for itself.
        """
        for recall in self._hooks.messages_recalled_recall:
            found: Mapping[str, bytes] = await recall(account, ids, session)
            return found
        return {}

    async def missed(
        self, session: Session, keep: Callable[[Sequence[tuple[str, int]], Callable[[str], int]], Any]
    ) -> None:
        """Have `keep` awaited with what the client of a session missed when that was lost which it wanted to
        resume: see the hook `messages_missed`. StoreError.
        """
        for missed in self._hooks.messages_missed_recall:
            await missed(session, keep)

    def lock(self, name: str) -> AbstractAsyncContextManager[None]:
        """Be the only one of all nodes that does what has this name: `async with`, which waits. Where there
        is no shared cache, or while it cannot be asked, nobody is kept out.
        """
        return self._lock(name)

    def http_client(
        self,
        *,
        allowed: Sequence[str] = (),
        seconds: float = 10.0,
        answer_bytes: int = 65_536,
        ca_file: str = "",
    ) -> HttpClient:
        """What asks others by HTTP. Only public addresses are connected to, and those of the `allowed`
        networks; plain HTTP only to these. No redirect is followed. `seconds` for a request and its answer,
        of which no more than so many bytes are read; certificates by the system's authorities, or those of
        `ca_file`.
        """
        # Its library is loaded where somebody asks.
        make = importlib.import_module("xmppd.net.http.client").Client
        client: HttpClient = make(allowed, seconds, answer_bytes, ca_file)
        return client

    def key_set(
        self,
        algorithms: Sequence[str],
        *,
        keys: Sequence[str] = (),
        url: str = "",
        allowed: Sequence[str] = (),
        seconds: float = 5.0,
        ca_file: str = "",
    ) -> KeySet:
        """Keys by which tokens that others sign (JWT, RFC 7519) are checked: `keys` as texts (PEM, a JWK or a
        JWK Set in JSON, with HS256 and the like a secret), and those at a `url` (a JWK Set, RFC 7517 5),
        which is asked as by `http_client`. `algorithms`: no other is taken. ValueError for what cannot be.
        """
        make = importlib.import_module("xmppd.keysets").key_set
        found: KeySet = make(algorithms, keys, url, allowed, seconds, ca_file, self.now, self._clock)
        return found

    async def send(self, stanza: Element) -> None:
        """Send a stanza of any kind by the rules for all others; StanzaError when it is refused.

        It comes from its `from`, which must be on a host of ours (ValueError), or from the server.
        """
        await self._sending.send(stanza)

    async def send_many(self, accounts: Iterable[str], stanza: Element) -> int:
        """Give a message or presence to those of the accounts that are there: serialised once, and in slices
        of the loop's time; how many copies there were. Nothing is kept for the others.
        """
        return await self._sending.send_many(accounts, stanza)

    def routes_to(self, host: str) -> bool:
        """Whether stanzas for addresses on a host that is no domain of ours are handed to anybody."""
        return host in self.services

    async def ask(
        self, to: str, payload: Element, *, kind: str = "get", sender: str = "", seconds: float = 30.0
    ) -> Element | None:
        """Send an iq to a session or a service and wait for its answer: the payload of the result.

        StanzaError as the answer tells; remote-server-timeout when none comes in time, recipient-unavailable
        when the session ends. No session answers while a handler of its own stanza waits for that.
        """
        return await self._sending.ask(to, payload, kind=kind, sender=sender, seconds=seconds)

    async def set_presence(self, session: Session, presence: Element) -> None:
        """Change a session's presence as if it had sent this itself; StanzaError when that is refused."""
        stanza = build.stanza_of(presence)
        if stanza.kind != "presence":
            raise ValueError(f"{presence.tag} is no presence")
        waiting = self._router.act(session, stanza)
        if waiting is not None:
            await waiting

    async def admit(self, stream: Negotiable, identity: Identity, mechanism: str) -> Login:
        """Let in a client that a row of a plugin's proved to be `identity`, by whatever way it calls
        `mechanism`; then hand the login to `stream.authenticated`. SaslError when it may not come in.
        """
        try:
            return await self._logins.let_in(_channel_of(stream), identity, mechanism, stream.mark)
        except SaslError:
            stream.mark = self._logins.mark()  # the next proof begins now
            raise

    async def refuse_login(
        self, stream: Negotiable, local: str, mechanism: str, condition: str = "not-authorized"
    ) -> NoReturn:
        """Say that a client did not prove to be `local` ("": nobody known), by whatever way a plugin's row
        calls `mechanism`. Who guesses waits in here, as after SASL; the SaslError that it raises is what to
        tell the client then.
        """
        try:
            await self._logins.turn_away(_channel_of(stream), local, mechanism, SaslError(condition))
        finally:
            stream.mark = self._logins.mark()  # the next proof begins now

    def set_expiry(self, session: Session, expires: float | None) -> None:
        """When the time of the session's login is over, in seconds since the epoch; None: never."""
        session.login.expires = expires
        self._expiry.watch(session)

    def restate(self, session: Session) -> float:
        """Show a session's presence again with what `presence_annexed` adds to it by now. Seconds until that
        may be done; 0.0: it was, or the session is not available.
        """
        return self._presences.restate(session)

    def appear_offline(self, account: str, away: Away | None, *, has_left: bool = False) -> None:
        """From now on an account that has sessions anywhere looks as if it had none to those for whom `away`
        gives the moment (seconds since the epoch, 0.0: it was never there) at which it left; None: to nobody.
        To be said on every node. `has_left`: on one of them, when somebody saw it until now.
        """
        if has_left:
            self._presences.forget_words(account)
        self._visibility.hidden.set(account, away)

    def recall_away(self, recall: Recall | None, *, instead_of: Recall | None = None) -> None:
        """Have it asked since when any account looks gone to another one, with sessions or without; None, in
        place of the one that is asked: nobody hides any more.
        """
        hidden = self._visibility.hidden
        if recall is not None or hidden.recall == instead_of:
            hidden.recall = recall
            if recall is None:
                hidden.clear()

    def appears_offline(self, account: str, viewer: str) -> bool:
        """Whether an account that has sessions looks to another one as if it had none."""
        return self._visibility.hidden.has(account, viewer)

    async def away_since(self, account: str, viewer: str) -> float | None:
        """Since when any account looks gone to another one (seconds since the epoch; 0.0: it was never
        there); None: it looks as it is.
        """
        hidden = self._visibility.hidden
        if hidden.recall is None or account == viewer:
            return None
        return hidden.since(account, viewer) if account in hidden else await hidden.recall(account, viewer)

    def show_presence(self, account: str, viewer: str) -> None:
        """Let a follower see the account's sessions on all nodes: what `sees` forbade it allows now."""
        self._presences.show(account, viewer)
        self._sessions.cluster.sight(account, viewer, is_end=False)

    def hide_presence(self, account: str, viewer: str) -> None:
        """Let a follower see the account's sessions on all nodes end: what `sees` still allows it is about to
        forbid. Other nodes take this before a cluster signal that is told afterwards.
        """
        self._presences.hide(account, viewer)
        self._sessions.cluster.sight(account, viewer, is_end=True)

    def end_session(self, session: Session, condition: str, text: str = "") -> None:
        """Close a session with a stream error."""
        self._end_session(session, StreamError(condition, text))

    async def remove_account(self, account: str, created: float | None = None) -> None:
        """Remove an account: its sessions end, its contacts are parted from, its roster and credentials are
        deleted. AccountUnknown. A repeat goes on where it was left.

        With `created` only the account that was made then: it is unknown when another has its name.
        """
        await self.accounts.remove(account, created)

    def writing(self, account: str, session: Session | None = None) -> Hold:
        """`async with server.writing(account) as exists:` around whatever is written for an account: nothing
        when there is none, and within it the account is not removed. Whoever has its name next would find it.
        With the `session` that asked for it the account must be the one that it logged in to.
        """
        return self.accounts.hold(account, None if session is None else session.login)

    def writing_many(self, accounts: Sequence[str]) -> HoldMany:
        """`async with server.writing_many(accounts) as there:` the same for up to some hundred different
        ones: those that there are.
        """
        return self.accounts.hold_many(accounts)

    def writing_both(self, one: str, other: str) -> AbstractAsyncContextManager[tuple[str, str]]:
        """`async with server.writing_both(one, other) as (one, other):` the same for what two accounts have
        with each other: as they are called then, for who is being renamed is waited for. So it is not to be
        begun within another one of these. Whether they are there is asked within. StanzaError where that
        takes too long.
        """
        return self.accounts.moving.together(one, other)


def _channel_of(stream: Negotiable) -> Channel:
    """What the gate is told of the stream of who logs in."""
    link = stream.link
    return Channel(stream.domain, link.secure, link.channel_bindings(), peer=link.peer)
