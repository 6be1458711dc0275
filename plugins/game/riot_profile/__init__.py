"""Another dialect of XMPP that clients of games speak: their logins, friends, blocks and presence, as another
way to what the plugins `game_login`, `friends` and `players` do. Off by default.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final, Protocol

from xmppd import hooks, ns
from xmppd.plugin import (
    Channel,
    Counter,
    Element,
    Jid,
    JidError,
    Mechanism,
    Negotiable,
    Phase,
    Plugin,
    Session,
    SessionSlot,
    Stanza,
    StanzaError,
    Uses,
    element,
    offers,
    serialize,
    stanza_of,
)

from .config import RiotProfileConfig
from .history import Archive, Histories
from .roster import IQ, FriendsOf, Rosters, local, moment
from .tokens import Logins, TokenChildren

GAMES: Final = f"{{{ns.CLIENT}}}games"
PRIVACY: Final = f"{{{ns.PRIVACY}}}query"
LIST: Final = f"{{{ns.PRIVACY}}}list"
ITEM: Final = f"{{{ns.PRIVACY}}}item"
SESSION: Final = f"{{{ns.SESSION}}}session"
LAST_ONLINE: Final = "last-online-state"
ITEMS: Final = 100
"""Of one change of a list."""

Answer = Callable[[Session, Element], Awaitable[Sequence[Element]]]
"""Answers a request by what stands in the result."""


class Names(Protocol):
    """What is asked of the plugin `players`."""

    def __bool__(self) -> bool: ...

    async def name_of(self, account: str) -> str | None: ...


class RiotProfile(Rosters, Histories, Plugin):
    """Takes requests of the dialect before anybody else does, and answers them as its clients expect."""

    Config = RiotProfileConfig
    friends: Uses[FriendsOf] = Uses("friends", needed=True)
    game_login: Uses[Logins] = Uses("game_login")
    players: Uses[Names] = Uses("players")
    archive: Uses[Archive] = Uses("archive")
    last_online = SessionSlot(False)
    """Whether a session wants to be told since when friends are away."""
    answered = Counter("Requests of the dialect that were answered.")

    async def start(self) -> None:
        """Which requests are of the dialect depends on the settings."""
        config = self.config
        if not set(config.proving) <= set(config.tokens):
            raise ValueError("proving: names of tokens")
        self.begin_pushing()
        rxep = [f"{{{config.urn}:rxep}}{name}" for name in ("rxep", "rxcep")]
        self._answers: dict[tuple[str | None, str], Answer] = {
            ("get", self.query("roster")): self.show_roster,
            ("set", self.query("roster")): self.change_roster,
            ("set", self.query("session")): self.be_active,
            ("set", self.query("rso")): self.take_token,
            ("get", self.query("archive")): self.show_talk,
            ("get", self.query("archive:list")): self.show_talks,
            ("set", self.query("archive:read")): self.mark_read,
            ("set", f"{{{config.urn}:entitlements}}entitlements"): self.take_entitlements,
            ("set", SESSION): self.open_session,
            ("get", PRIVACY): self.show_blocks,
            ("set", PRIVACY): self.change_blocks,
            **{("set", name): self.opt_in for name in rxep},
        }

    def query(self, what: str) -> str:
        """The name of a query of the dialect."""
        return f"{{{self.config.namespace}:{what}}}query"

    def named(self, what: str, name: str, attrs: dict[str, str] | None, *content: Element | str) -> Element:
        """An element of the dialect, of the namespace of some query."""
        return element(f"{{{self.config.namespace}:{what}}}{name}", attrs, *content)

    def serves(self, domain: str) -> bool:
        """Whether the dialect is spoken on a domain."""
        return not self.config.domains or domain in self.config.domains

    # ways in

    def mechanisms(self) -> Sequence[Mechanism]:
        """Those with tokens as children of `<auth/>`."""
        config, needs_tls = self.config, not self.config.without_tls
        return [
            TokenChildren(
                name, self.game_login, self.serves, config.tokens, config.proving, needs_tls=needs_tls
            )
            for name in config.mechanisms
        ]

    @hooks.password_check.at(hooks.FILTER, hooks.EARLY)
    def strip(self, jid: Jid, password: str, channel: Channel) -> str | None:
        """The prefix that older clients put before what was typed."""
        prefix = self.config.prefix
        if not prefix or not self.serves(channel.domain) or not password.startswith(prefix):
            return None
        return password[len(prefix) :]

    @offers(Phase.BIND)
    def offer(self, stream: Negotiable) -> bytes:
        """What can be opted in to."""
        if not self.serves(stream.domain):
            return b""
        urn = f"{self.config.urn}:rxep"
        return serialize(element(f"{{{urn}}}rxep", None, element(f"{{{urn}}}{LAST_ONLINE}")))

    # requests

    @hooks.iq_sent.at(hooks.FILTER)
    def take(self, session: Session, iq: Stanza) -> Stanza | Coroutine[Any, Any, hooks.Drop]:
        """A request of the dialect to one's own account or server is answered, all else goes its way."""
        answer = self._answers.get((iq.type, iq.payload))
        if answer is None or not self._is_ours(session, iq):
            return iq
        return self._answer(session, iq, answer)

    def _is_ours(self, session: Session, iq: Stanza) -> bool:
        domain = session.account.rpartition("@")[2]
        try:
            to = Jid.parse(iq.to or session.account).full
        except JidError:
            return False
        if to not in (session.account, session.full, domain) or not self.serves(domain):
            return False
        if iq.payload != PRIVACY:
            return True
        lists = [child.get("name") for child in iq.xml[0]]
        return lists == [self.config.list_name]

    async def _answer(self, session: Session, iq: Stanza, answer: Answer) -> hooks.Drop:
        if session.is_anonymous:
            raise StanzaError("not-allowed", "A guest has none of this.")
        content = await answer(session, iq.xml[0])
        attrs = {"type": "result", "id": iq.id or "", "to": session.full}
        if iq.to is not None:
            attrs["from"] = iq.to
        session.send(serialize(element(IQ, attrs, *content)))
        self.answered.inc()
        return hooks.DROP

    async def open_session(self, session: Session, payload: Element) -> list[Element]:
        """The session of old (RFC 3921 3), with who one is, as the dialect's clients ask."""
        name = await self.players.name_of(session.account) if self.players else None
        shown, hash_, tag = (name or "").rpartition("#")
        if not hash_:
            return [element(SESSION)]
        ids = element(f"{{{ns.SESSION}}}id", {"name": shown, "tagline": tag})
        return [element(SESSION, None, ids, element(f"{{{ns.SESSION}}}summoner_name", None, shown))]

    async def take_entitlements(self, session: Session, payload: Element) -> list[Element]:
        """A token of what one has. What a player has is said by the token that let him in; this one is not
        looked at, and not kept.
        """
        if not any(local(child) == "token" and child.text for child in payload):
            raise StanzaError("bad-request", "There is no token.")
        return []

    async def take_token(self, session: Session, query: Element) -> list[Element]:
        """Another token in place of the one that the session logged in by."""
        tokens = [child.text or "" for child in query if local(child) == "access-token"]
        if len(tokens) != 1:
            raise StanzaError("bad-request", "There is no token.")
        if not self.game_login:
            raise StanzaError("service-unavailable", "Nobody looks at tokens here.")
        await self.game_login.renew(session, tokens[0].strip())
        return []

    async def be_active(self, session: Session, query: Element) -> list[Element]:
        """Somebody looks at the client."""
        modes = [child.get("mode") for child in query if local(child) == "session"]
        if modes != ["active"]:
            raise StanzaError("bad-request", "A session is active.")
        return []

    async def opt_in(self, session: Session, payload: Element) -> list[Element]:
        """What a client wants by `rxep`: as an element, or as its text, as some clients send it."""
        for child in payload:
            if local(child) == LAST_ONLINE:
                self.last_online[session] = child.get("enabled") == "true"
                return []
        text = "".join((payload.text or "").split()).replace('"', "'")
        if not text.startswith(f"<{LAST_ONLINE}"):
            raise StanzaError("feature-not-implemented", f"There is {LAST_ONLINE}.")
        self.last_online[session] = "enabled='true'" in text
        return []

    # blocks

    async def show_blocks(self, session: Session, query: Element) -> list[Element]:
        """The list of whom one blocks; one of nobody is empty."""
        if query[0].tag != LIST:
            raise StanzaError("bad-request", "Ask for the list.")
        addresses = await self.server.blocks.of(session.account)
        items = [
            element(ITEM, {"type": "jid", "value": address, "action": "deny", "order": str(order)})
            for order, address in enumerate(addresses, 1)
        ]
        return [element(PRIVACY, None, element(LIST, {"name": self.config.list_name}, *items))]

    async def change_blocks(self, session: Session, query: Element) -> list[Element]:
        """Block some more (`add`), or some no more (`remove`), without the rest of the list."""
        what, items = local(query[0]), list(query[0])
        if what not in ("add", "remove") or not 0 < len(items) <= ITEMS:
            raise StanzaError("bad-request", "Add items, or remove them.")
        addresses: list[str] = []
        for item in items:
            if item.get("type") != "jid" or item.get("action", "deny") != "deny" or len(item):
                raise StanzaError("bad-request", "An item denies an address everything.")
            try:
                addresses.append(Jid.parse(item.get("value", "")).full)
            except JidError as error:
                raise StanzaError("jid-malformed", str(error)) from None
        async with self.server.writing(session.account, session) as exists:
            if not exists:
                raise StanzaError("not-allowed", "A guest has no list.")
            if what == "add":
                await self.server.blocks.block(session.account, addresses)
            else:
                await self.server.blocks.unblock(session.account, addresses)
        return []

    # presence and messages

    @hooks.presence_sent.at(hooks.POLICY)
    def bound_games(self, session: Session, presence: Stanza) -> None:
        """What a client says of its games goes to who sees its presence, and is not too long."""
        if len(presence.raw) <= self.config.games_bytes:
            return
        games = presence.xml.findall(GAMES)
        if sum(len(serialize(it)) for it in games) > self.config.games_bytes:
            raise StanzaError("not-acceptable", f"Say it of games in {self.config.games_bytes} bytes.")

    @hooks.message_sent.at(hooks.FILTER)
    def stamp(self, session: Session, message: Stanza) -> Stanza:
        """When a chat message came, as an attribute of its own; nobody says that himself."""
        if message.type != "chat" or not self.serves(session.account.rpartition("@")[2]):
            return message
        tree = message.xml
        stamped = element(tree.tag, {**tree.attrib, "stamp": moment(self.now())}, tree.text or "", *tree)
        return stanza_of(stamped)
