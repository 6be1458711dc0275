"""The oracle: a plain model of accounts, sessions, rosters and presence that says who is to receive what.

It follows RFC 6120 and 6121 and the documented choices of the server, and shares no code with its core. Every
stanza is one step; what it causes is noted at the sessions that are to receive it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from fuzzing.expect import Again, Away, Delayed, Exactly, Expected, Push, Reply
from fuzzing.jids import DOMAIN, parts
from fuzzing.reference import CLIENT, Tree, children, text_of

LANG = "{http://www.w3.org/XML/1998/namespace}lang"
MESSAGE, PRESENCE, IQ = (f"{{{CLIENT}}}{kind}" for kind in ("message", "presence", "iq"))
Attrs = dict[str, str]


@dataclass
class Item:
    """What an account knows of a contact. `sees` is subscription `to`, `shows` is `from`."""

    sees: bool = False
    shows: bool = False
    ask: bool = False
    pending: Tree | None = None
    approved: bool = False
    name: str = ""
    groups: tuple[str, ...] = ()
    listed: bool = False

    @property
    def shown(self) -> tuple[str, ...] | None:
        """As clients see it; None: not at all."""
        if not self.listed:
            return None
        words = {(False, False): "none", (True, False): "to", (False, True): "from", (True, True): "both"}
        ask, approved = "subscribe" if self.ask else "", "true" if self.approved else ""
        return words[self.sees, self.shows], ask, approved, self.name, *sorted(self.groups)

    def receive(self, kind: str, stanza: Tree) -> tuple[bool, bool]:
        """The contact's stanza comes: is it delivered, and is it granted at once (RFC 6121 3, A.3)?"""
        if kind == "subscribe":
            granted = self.shows or self.approved
            is_new = not granted and self.pending is None
            if granted:
                self.shows, self.pending = True, None
            elif is_new:
                self.pending = stanza
            return is_new, granted
        if kind == "unsubscribe":
            deliver = self.shows or self.pending is not None
            self.shows, self.pending = False, None
        elif kind == "subscribed":
            deliver = self.ask
            self.sees, self.ask = self.sees or deliver, False
        else:
            deliver = self.ask or self.sees
            self.sees = self.ask = False
        return deliver, False


@dataclass(eq=False)
class Login:
    """One session. `due` is what it is to receive, by step; `perhaps` what it may receive at any time."""

    account: str
    resource: str
    lang: str
    priority: int = 0
    presence: tuple[Attrs, tuple[object, ...]] | None = None
    directed: dict[str, Tree] = field(default_factory=dict)
    interested: bool = False
    due: list[tuple[int, Expected]] = field(default_factory=list)
    perhaps: list[Expected] = field(default_factory=list)

    @property
    def full(self) -> str:
        """Its full JID."""
        return f"{self.account}/{self.resource}"


@dataclass
class Account:
    """One account."""

    roster: dict[str, Item] = field(default_factory=dict)
    offline: list[Delayed] = field(default_factory=list)
    logins: dict[str, Login] = field(default_factory=dict)

    def item(self, contact: str) -> Item:
        """What it knows of the contact; a new item if that is nothing."""
        return self.roster.get(contact) or Item()

    @property
    def available(self) -> list[Login]:
        """The sessions with presence."""
        return [login for login in self.logins.values() if login.presence is not None]

    @property
    def targets(self) -> list[Login]:
        """The sessions that take messages to the bare JID."""
        top = max((login.priority for login in self.available), default=-1)
        return [login for login in self.available if login.priority == top >= 0]


def build(tag: str, attrs: Attrs, content: tuple[object, ...] = ()) -> Tree:
    """A tree."""
    return tag, tuple(sorted(attrs.items())), content


class Model:
    """All accounts of the server."""

    def __init__(self, accounts: tuple[str, ...], *, offline_limit: int) -> None:
        self.accounts = {account: Account() for account in accounts}
        self.offline_limit = offline_limit
        self.step = 0

    def due(self, login: Login, expected: Expected) -> None:
        """The session is to receive this in the course of the present step."""
        login.due.append((self.step, expected))

    def find(self, address: tuple[str, str, str]) -> Login | None:
        """The session with this full JID."""
        local, domain, resource = address
        account = self.accounts.get(f"{local}@{domain}")
        return account.logins.get(resource) if account else None

    def shows(self, account: str, to: str) -> bool:
        """Whether the account lets the other one see its presence."""
        found = self.accounts.get(account)
        return found is not None and found.item(to).shows

    def refuse(self, login: Login, tree: Tree, *conditions: str) -> None:
        """The sender is to receive an error, but never for an error (RFC 6120 8.3.1)."""
        attrs = dict(tree[1])
        if attrs.get("type") not in ("error", "result"):
            to = attrs.get("to")
            self.due(login, Reply(tree[0], attrs.get("id"), to, login.full, ("error",), conditions))

    @staticmethod
    def stamped(login: Login, tree: Tree) -> Attrs:
        """The attributes with which a stanza is forwarded (RFC 6120 8.1.2.1, 8.1.5)."""
        attrs = {**dict(tree[1]), "from": login.full}
        if login.lang:
            attrs.setdefault(LANG, login.lang)
        address = parts(attrs.get("to") or "")
        if tree[0] != IQ and address is not None and address[1] == DOMAIN:
            attrs["to"] = written(address)
        return attrs

    # messages (RFC 6121 8.5)

    def message(self, login: Login, tree: Tree) -> None:
        """A message goes to whom the table says."""
        attrs = self.stamped(login, tree)
        if not attrs.get("to"):
            attrs["to"] = login.account
        copy = build(MESSAGE, attrs, honest(tree, login.account)[2])
        kind = attrs.get("type") or "normal"
        if kind not in ("chat", "groupchat", "headline", "error"):
            kind = "normal"
        to = parts(attrs["to"])
        if to is None:
            return self.refuse(login, tree, "jid-malformed")
        if to[1] != DOMAIN:
            return self.refuse(login, tree, "remote-server-not-found")
        if not to[0]:
            return self.refuse(login, tree)
        receiver = self.find(to) if to[2] else None
        if receiver is not None:
            return self.due(receiver, Exactly(copy))
        if to[2] and kind != "chat":
            return self.refuse(login, tree) if kind in ("normal", "groupchat") else None
        return self.to_account(login, tree, copy, kind, f"{to[0]}@{to[1]}")

    def to_account(self, login: Login, tree: Tree, copy: Tree, kind: str, bare: str) -> None:
        """A message to a bare JID (RFC 6121 8.5.2)."""
        account = self.accounts.get(bare)
        targets = account.targets if account else []
        if kind == "groupchat":
            return self.refuse(login, tree)
        if kind == "error":
            return None
        if kind == "headline":
            targets = [other for other in account.available if other.priority >= 0] if account else []
        elif not targets:
            return self.keep(login, tree, copy, account)
        for target in targets:
            self.due(target, Exactly(copy))
        return None

    def keep(self, login: Login, tree: Tree, copy: Tree, account: Account | None) -> None:
        """A message for nobody (XEP-0160)."""
        if account is None:
            return self.refuse(login, tree, "service-unavailable")
        inner = children(copy)
        states = [child for child in inner if child[0].startswith("{http://jabber.org/protocol/chatstates}")]
        rest = [child for child in inner if child not in states]
        beside = (f"{{{CLIENT}}}thread", "{urn:xmpp:delay}delay")
        if states and all(child[0] in beside or child[0].endswith("}no-store") for child in rest):
            return None
        if any(child[0] == "{urn:xmpp:hints}no-store" for child in inner):
            return self.refuse(login, tree, "service-unavailable")
        if len(account.offline) >= self.offline_limit:
            return self.refuse(login, tree, "service-unavailable")
        account.offline.append(Delayed(copy))
        return None

    # presence (RFC 6121 4)

    def presence(self, login: Login, tree: Tree) -> None:
        """Undirected or directed presence, a probe, or a subscription stanza."""
        tree = honest(tree, login.account)
        attrs = dict(tree[1])
        kind, to = attrs.get("type"), attrs.get("to")
        if not to:
            if kind is None:
                return self.show(login, tree)
            return (
                self.leave(login, tree) if kind == "unavailable" else self.refuse(login, tree, "bad-request")
            )
        address = parts(to)
        if address is None:
            return self.refuse(login, tree, "jid-malformed")
        bare = f"{address[0]}@{address[1]}" if address[0] else address[1]
        if kind in ("subscribe", "subscribed", "unsubscribe", "unsubscribed"):
            if bare == login.account or (not address[0] and address[1] == DOMAIN):
                return self.refuse(login, tree, "bad-request")
            if address[1] != DOMAIN:
                return self.refuse(login, tree, "remote-server-not-found")
            attrs = {**self.stamped(login, tree), "from": login.account, "to": bare}
            return self.subscription(login.account, bare, kind, build(PRESENCE, attrs, tree[2]))
        if kind not in (None, "unavailable", "probe", "error"):
            return self.refuse(login, tree, "bad-request")
        if address[1] != DOMAIN:
            return self.refuse(login, tree, "remote-server-not-found")
        if kind == "probe":
            return self.probe(login, bare, address[2])
        return self.direct(login, tree, address)

    def show(self, login: Login, tree: Tree) -> None:
        """Initial or later presence (RFC 6121 4.2, 4.4)."""
        priority = priority_of(tree)
        if priority is None:
            return self.refuse(login, tree, "bad-request")
        account = self.accounts[login.account]
        first, before = login.presence is None, login.priority
        attrs = self.stamped(login, tree)
        attrs.pop("to", None)
        login.presence, login.priority = (attrs, tree[2]), priority
        self.broadcast(login, attrs, tree[2])
        if first:
            self.welcome(login, account)
        if priority >= 0 and (first or before < 0):
            for message in account.offline:
                self.due(login, message)
            account.offline.clear()
        return None

    def welcome(self, login: Login, account: Account) -> None:
        """What a new available session is shown (RFC 6121 4.2.2, 4.3)."""
        for own in account.available:
            if own is not login:
                self.copy_presence(own, login)
        for contact, item in account.roster.items():
            other = self.accounts.get(contact)
            if item.sees and other is not None and other.item(login.account).shows:
                for seen in other.available:
                    self.copy_presence(seen, login)
                if not other.available:
                    login.perhaps.append(Away(contact, login.account))
            if item.pending is not None:
                self.due(login, Exactly(item.pending))

    def copy_presence(self, of: Login, to: Login) -> None:
        """A session is shown another one's presence."""
        assert of.presence is not None
        attrs, content = of.presence
        self.due(to, Exactly(build(PRESENCE, {**attrs, "to": to.account}, content)))

    def broadcast(self, login: Login, attrs: Attrs, content: tuple[object, ...]) -> None:
        """To all available sessions of those who see the account, and its own."""
        account = self.accounts[login.account]
        followers = [contact for contact, item in account.roster.items() if item.shows]
        for contact in (*followers, login.account):
            other = self.accounts.get(contact)
            for receiver in other.available if other else ():
                self.due(receiver, Exactly(build(PRESENCE, {**attrs, "to": contact}, content)))

    def leave(self, login: Login, tree: Tree) -> None:
        """Unavailable, by the client's own word (RFC 6121 4.5)."""
        attrs = self.stamped(login, tree)
        attrs.pop("to", None)
        was_there = login.presence is not None
        self.withdraw(login, attrs, tree[2])
        if was_there:
            self.due(login, Exactly(build(PRESENCE, {**attrs, "to": login.account}, tree[2])))

    def lost(self, login: Login) -> None:
        """The session ends."""
        attrs = {"type": "unavailable", "from": login.full}
        if login.lang:
            attrs[LANG] = login.lang
        self.withdraw(login, attrs, ())
        del self.accounts[login.account].logins[login.resource]

    def withdraw(self, login: Login, attrs: Attrs, content: tuple[object, ...]) -> None:
        """All who were told of the session hear of its end, nobody twice."""
        directed, login.directed = login.directed, {}
        for target in directed:
            address = parts(target)
            assert address is not None
            bare = f"{address[0]}@{address[1]}"
            if not (self.is_told(login, bare) and self.hears(address)):
                self.send_to(address, build(PRESENCE, {**attrs, "to": target}, content))
        if login.presence is not None:
            login.presence = None
            self.broadcast(login, attrs, content)

    def is_told(self, login: Login, bare: str) -> bool:
        """Whether the session's broadcasts go to this account."""
        return login.presence is not None and (bare == login.account or self.shows(login.account, bare))

    def hears(self, address: tuple[str, str, str]) -> bool:
        """Whether a broadcast to the account reaches whom this address names."""
        receiver = self.find(address) if address[2] else None
        return receiver is None or receiver.presence is not None

    def direct(self, login: Login, tree: Tree, to: tuple[str, str, str]) -> None:
        """Directed presence (RFC 6121 4.6)."""
        full = f"{to[0]}@{to[1]}" if to[0] else to[1]
        full += f"/{to[2]}" if to[2] else ""
        kind = dict(tree[1]).get("type")
        if kind is None:
            if len(login.directed) >= 1000 and full not in login.directed:
                return self.refuse(login, tree, "resource-constraint")
            login.directed[full] = build(PRESENCE, self.stamped(login, tree), tree[2])
        elif kind == "unavailable":
            login.directed.pop(full, None)
        return self.send_to(to, build(PRESENCE, self.stamped(login, tree), tree[2]))

    def send_to(self, to: tuple[str, str, str], copy: Tree) -> None:
        """To a session, or the available ones of an account."""
        if to[2]:
            receiver = self.find(to)
            receivers = [receiver] if receiver else []
        else:
            account = self.accounts.get(f"{to[0]}@{to[1]}")
            receivers = account.available if account else []
        for receiver in receivers:
            self.due(receiver, Exactly(copy))

    def probe(self, login: Login, bare: str, resource: str) -> None:
        """A client's own probe (RFC 6121 4.3); who was sent directed presence is shown that again (4.6)."""
        may_see = bare == login.account or self.shows(bare, login.account)
        account = self.accounts.get(bare)
        asked = [
            other
            for other in (account.logins.values() if account else ())
            if resource in ("", other.resource)
        ]
        is_shown = False
        for other in asked:
            if may_see and other.presence is not None:
                self.copy_presence(other, login)
                is_shown = True
                continue
            for address in (login.account, login.full):
                if address in other.directed:
                    self.due(login, Again(other.directed[address]))
                    is_shown = True
        if may_see and not is_shown:
            self.due(login, Away(bare, login.account))
        elif not is_shown:
            attrs = {"type": "unsubscribed", "from": bare, "to": login.account}
            self.due(login, Exactly(build(PRESENCE, attrs)))

    # subscriptions (RFC 6121 3)

    def subscription(self, account: str, contact: str, kind: str, stanza: Tree) -> None:
        """The account sends a subscription stanza."""
        own = self.accounts[account]
        item = own.item(contact)
        before, showed, routed = item.shown, item.shows, True
        if kind == "subscribe":
            item.ask, item.listed = not item.sees, True
        elif kind == "unsubscribe":
            item.sees = item.ask = False
        elif kind == "subscribed":
            if routed := item.pending is not None:
                item.shows, item.pending = True, None
            elif not item.shows:
                item.approved = True
        else:
            routed = item.shows or item.pending is not None
            item.shows, item.pending, item.approved = False, None, False
        self.store(own, account, contact, item, before)
        if kind == "unsubscribed" and showed:
            self.hide(account, contact)
        if routed:
            self.arrive(account, contact, kind, stanza)
            if kind == "subscribed":
                self.reveal(account, contact)

    def store(
        self, own: Account, account: str, contact: str, item: Item, before: tuple[str, ...] | None
    ) -> None:
        """Keep an item unless it says nothing, and push what clients see of it."""
        item.listed = item.listed or item.sees or item.shows or item.ask or item.approved
        if item.listed or item.pending is not None:
            own.roster[contact] = item
        else:
            own.roster.pop(contact, None)
        if item.shown != before:
            self.push(account, contact, item.shown)

    def push(self, account: str, contact: str, shown: tuple[str, ...] | None) -> None:
        """A roster push to the interested sessions."""
        for login in self.accounts[account].logins.values():
            if login.interested:
                self.due(login, Push(login.full, contact, shown))

    def arrive(self, account: str, contact: str, kind: str, stanza: Tree | None = None) -> None:
        """A subscription stanza reaches the contact."""
        other = self.accounts.get(contact)
        if other is None:
            return
        item = other.item(account)
        before, showed = item.shown, item.shows
        stanza = stanza or build(PRESENCE, {"type": kind, "from": account, "to": contact})
        deliver, reply = item.receive(kind, stanza)
        if deliver:
            for login in other.logins.values():
                if login.presence is not None if kind == "subscribe" else login.interested:
                    self.due(login, Exactly(stanza))
        self.store(other, contact, account, item, before)
        if kind == "unsubscribe" and showed:
            self.hide(contact, account)
        if reply:
            self.arrive(contact, account, "subscribed")
            self.reveal(contact, account)

    def reveal(self, account: str, contact: str) -> None:
        """The contact sees the account's presence from now on."""
        other = self.accounts.get(contact)
        if other is None or not self.shows(account, contact):
            return
        for login in self.accounts[account].available:
            for receiver in other.available:
                self.copy_presence(login, receiver)

    def hide(self, account: str, contact: str) -> None:
        """The contact sees the account's presence no more."""
        other = self.accounts.get(contact)
        if other is None or self.shows(account, contact) or not self.accounts[account].logins:
            return
        for login in self.accounts[account].available:
            if other.logins:
                for target in list(login.directed):
                    address = parts(target)
                    if address and f"{address[0]}@{address[1]}" == contact and self.hears(address):
                        del login.directed[target]
            attrs = {"type": "unavailable", "from": login.full}
            if login.lang:
                attrs[LANG] = login.lang
            for receiver in other.available:
                self.due(receiver, Exactly(build(PRESENCE, {**attrs, "to": contact})))


def priority_of(tree: Tree) -> int | None:
    """The priority (RFC 6121 4.7.2.3), None if it is none."""
    found = [child for child in children(tree) if child[0] == f"{{{CLIENT}}}priority"]
    if not found:
        return 0
    text = text_of(found[0]).strip()
    digits = text.removeprefix("-") if text.startswith("-") else text.removeprefix("+")
    if len(found) > 1 or not digits.isascii() or not digits.isdigit() or len(digits) > 3:
        return None
    return int(text) if -128 <= int(text) <= 127 else None


def honest(tree: Tree, account: str) -> Tree:
    """The stanza without any <stanza-id/> in the name of our domain or somebody in it (XEP-0359 5), and
    without any <delay/> in that of our domain or another account (XEP-0203 6).
    """
    content: list[object] = []
    dropped = False
    for part in tree[2]:
        if isinstance(part, str):
            if not dropped:
                content.append(part)
            dropped = False
            continue
        dropped = is_forged(part, account)
        if not dropped:
            content.append(part)
    return tree[0], tree[1], tuple(content)


def is_forged(part: Tree, account: str) -> bool:
    attrs = dict(part[1])
    if part[0] == "{urn:xmpp:sid:0}stanza-id":
        return is_ours(attrs.get("by", ""), "")
    if part[0] in ("{urn:xmpp:delay}delay", "{jabber:x:delay}x"):
        return is_ours(attrs.get("from", ""), account)
    return False


def is_ours(text: str, account: str) -> bool:
    """Whether this looks like an address in our domain, and not like `account`."""
    address = parts(text.strip())
    if address is None:
        return text.strip().partition("/")[0].rpartition("@")[2].lower() == DOMAIN
    return address[1] == DOMAIN and written((address[0], address[1], "")) != account


def written(address: tuple[str, str, str]) -> str:
    """The address as one text."""
    local, domain, resource = address
    return (f"{local}@" if local else "") + domain + (f"/{resource}" if resource else "")
