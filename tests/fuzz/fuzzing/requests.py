"""The oracle's part for iqs: who answers, whom one reaches, and what may not be learnt by one."""

from __future__ import annotations

from fuzzing.expect import ROSTER, Exactly, Reply
from fuzzing.jids import DOMAIN, parts
from fuzzing.model import IQ, MESSAGE, PRESENCE, Item, Login, Model, build
from fuzzing.reference import Tree, children, text_of

DISCO_INFO = "{http://jabber.org/protocol/disco#info}query"
DISCO_ITEMS = "{http://jabber.org/protocol/disco#items}query"
VCARD = "{vcard-temp}vCard"
PING = "{urn:xmpp:ping}ping"
LAST = "{jabber:iq:last}query"


class Oracle(Model):
    """The whole oracle: takes what a bound session sends."""

    def take(self, login: Login, tree: Tree) -> bool:
        """One element of a session's stream; False when it ends the stream."""
        self.step += 1
        steps = {MESSAGE: self.message, PRESENCE: self.presence, IQ: self.iq}
        step = steps.get(tree[0])
        if step is None:
            return False
        step(login, tree)
        return True

    def iq(self, login: Login, tree: Tree) -> None:
        """A request or an answer (RFC 6120 8.2.3, RFC 6121 8.5)."""
        attrs = dict(tree[1])
        kind, to = attrs.get("type"), attrs.get("to")
        inner = children(tree)
        if not attrs.get("id") or kind not in ("get", "set", "result", "error"):
            return self.refuse(login, tree, "bad-request")
        if kind in ("get", "set") and len(inner) != 1:
            return self.refuse(login, tree, "bad-request")
        address = parts(to) if to else parts(login.account)
        if address is None:
            return self.refuse(login, tree, "jid-malformed")
        if address[1] != DOMAIN:
            return self.refuse(login, tree, "remote-server-not-found")
        if address[2]:
            return self.forward(login, tree, address)
        if kind not in ("get", "set"):
            return None
        bare = f"{address[0]}@{address[1]}" if address[0] else DOMAIN
        if bare == login.account:
            return self.ask_own(login, tree, kind, inner[0])
        if bare == DOMAIN:
            return self.answer(login, tree, "result", "error")
        return self.ask_other(login, tree, kind, inner[0][0], bare)

    def forward(self, login: Login, tree: Tree, to: tuple[str, str, str]) -> None:
        """To a session, a stranger's too (iqs.from_strangers), but for what is not everybody's to ask."""
        receiver = self.find(to)
        bare = f"{to[0]}@{to[1]}"
        is_reply = dict(tree[1])["type"] in ("result", "error")
        payload = "" if is_reply else children(tree)[0][0]
        is_theirs = to[0] != "" and bare != login.account
        may_know = self.shows(bare, login.account) or (
            receiver is not None and self.was_told(receiver, login)
        )
        if is_theirs and (payload == f"{ROSTER}query" or (payload == LAST and not may_know)):
            self.refuse(login, tree, "forbidden")
        elif receiver is not None:
            self.due(receiver, Exactly(build(IQ, self.stamped(login, tree), tree[2])))
        elif not is_reply:
            self.refuse(login, tree, "service-unavailable")

    @staticmethod
    def was_told(login: Login, other: Login) -> bool:
        """Whether the other one's account was sent directed presence by the session."""
        return any(target.partition("/")[0] == other.account for target in login.directed)

    def answer(self, login: Login, tree: Tree, *types: str, empty: bool = False) -> None:
        """Exactly one answer, of one of these types."""
        attrs = dict(tree[1])
        self.due(login, Reply(IQ, attrs["id"], attrs.get("to"), login.full, types, empty=empty))

    def ask_other(self, login: Login, tree: Tree, kind: str, payload: str, bare: str) -> None:
        """A request to an account of somebody else: very little is told."""
        sees = self.shows(bare, login.account)
        open_to_all = payload in (VCARD, PING)
        open_to_friends = payload in (DISCO_INFO, DISCO_ITEMS, LAST)
        if kind == "get" and (open_to_all or (open_to_friends and sees)):
            self.answer(login, tree, "result", "error")
        elif kind == "get" and payload == DISCO_ITEMS:
            self.answer(login, tree, "result", "error", empty=True)
        else:
            self.answer(login, tree, "error")

    def ask_own(self, login: Login, tree: Tree, kind: str, payload: Tree) -> None:
        """A request to one's own account."""
        if payload[0] == f"{ROSTER}query":
            return self.roster_get(login, tree) if kind == "get" else self.roster_set(login, tree, payload)
        if payload[0] == "{urn:ietf:params:xml:ns:xmpp-bind}bind":
            return self.answer(login, tree, "error")
        return self.answer(login, tree, "result", "error")

    # rosters (RFC 6121 2)

    def roster_get(self, login: Login, tree: Tree) -> None:
        """The whole roster, and pushes from now on."""
        login.interested = True
        attrs = dict(tree[1])
        roster = self.accounts[login.account].roster
        items = {contact: item.shown for contact, item in roster.items() if item.shown is not None}
        self.due(login, Reply(IQ, attrs["id"], attrs.get("to"), login.full, ("result",), items=items))

    def roster_set(self, login: Login, tree: Tree, query: Tree) -> None:
        """One item is added, changed or removed, or the wish is refused."""
        items = [child for child in children(query) if child[0] == f"{ROSTER}item"]
        attrs = dict(items[0][1]) if len(items) == 1 else {}
        address = parts(attrs["jid"]) if "jid" in attrs else None
        if address is None or address[2]:
            return self.answer(login, tree, "error")
        account = self.accounts[login.account]
        contact = f"{address[0]}@{address[1]}" if address[0] else address[1]
        if attrs.get("subscription") == "remove":
            item = account.roster.get(contact)
            if item is None or not item.listed:
                return self.answer(login, tree, "error")
            self.answer(login, tree, "result")
            return self.remove(login.account, contact, item)
        groups = tuple(text_of(child) for child in children(items[0]) if child[0] == f"{ROSTER}group")
        name = attrs.get("name", "")
        long = any(len(text.encode()) > 1023 for text in (name, *groups))
        if (
            contact == login.account
            or long
            or len(set(groups)) < len(groups)
            or "" in groups
            or len(groups) > 10
        ):
            return self.answer(login, tree, "error")
        item = account.roster.setdefault(contact, Item())
        item.listed, item.name, item.groups = True, name, groups
        self.push(login.account, contact, item.shown)
        return self.answer(login, tree, "result")

    def remove(self, account: str, contact: str, item: Item) -> None:
        """A contact is removed, and told what that means (RFC 6121 2.5.2)."""
        del self.accounts[account].roster[contact]
        self.push(account, contact, None)
        if item.sees or item.ask:
            self.arrive(account, contact, "unsubscribe")
        if item.shows or item.pending is not None:
            self.arrive(account, contact, "unsubscribed")
        if item.shows:
            self.hide(account, contact)
