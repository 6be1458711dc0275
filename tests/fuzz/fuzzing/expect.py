"""What a client is to receive: patterns that a received tree is held against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from fuzzing.reference import CLIENT, Tree, children

DELAY = "{urn:xmpp:delay}delay"
ROSTER = "{jabber:iq:roster}"
STANZA_ERRORS = "{urn:ietf:params:xml:ns:xmpp-stanzas}"


class Expected(Protocol):
    """One stanza, as far as it is known."""

    def fits(self, tree: Tree) -> bool:
        """Whether this is it."""


@dataclass(frozen=True, slots=True)
class Exactly:
    """This very tree."""

    tree: Tree

    def fits(self, tree: Tree) -> bool:
        return tree == self.tree


@dataclass(frozen=True, slots=True)
class Again:
    """This presence, or only that it is there: the server keeps a part of what was directed."""

    tree: Tree

    def fits(self, tree: Tree) -> bool:
        attrs = dict(tree[1])
        sender = dict(self.tree[1])["from"]
        return tree == self.tree or (not tree[2] and attrs["from"] == sender and "type" not in attrs)


@dataclass(frozen=True, slots=True)
class Delayed:
    """This tree with one more child: the server's stamp, at the end (XEP-0203)."""

    tree: Tree

    def fits(self, tree: Tree) -> bool:
        if not tree[2] or isinstance(tree[2][-1], str):
            return False
        last = tree[2][-1]
        return (
            last[0] == DELAY
            and ("from", "localhost") in last[1]
            and tree[:2] == self.tree[:2]
            and tree[2][:-1] == self.tree[2]
        )


@dataclass(frozen=True, slots=True)
class Reply:
    """The server's answer to a stanza: from whom it was sent to, to its sender, with its id."""

    kind: str
    id: str | None
    by: str | None
    to: str
    types: tuple[str, ...] = ("error",)
    conditions: tuple[str, ...] = ()
    items: dict[str, tuple[str, ...]] | None = None
    """What a roster has to show: contact to (subscription, ask, name, groups)."""
    empty: bool = False
    """Whether nothing may be shown."""

    def fits(self, tree: Tree) -> bool:
        attrs = dict(tree[1])
        if (
            tree[0] != self.kind
            or attrs.pop("type", None) not in self.types
            or attrs.pop("to", "") != self.to
        ):
            return False
        if attrs.pop("id", None) != self.id or attrs.pop("from", None) != (self.by or None) or attrs:
            return False
        content = children(tree)
        if ("type", "error") in tree[1]:
            return self._fits_error(content)
        if self.empty:
            return not any(children(child) for child in content)
        if self.items is not None and content:
            return dict(map(roster_item, children(content[0]))) == self.items
        return True

    def _fits_error(self, content: list[Tree]) -> bool:
        if len(content) != 1 or content[0][0] != f"{{{CLIENT}}}error":
            return False
        condition = children(content[0])[0][0]
        if condition == f"{STANZA_ERRORS}internal-server-error" or not condition.startswith(STANZA_ERRORS):
            return False
        return not self.conditions or condition.removeprefix(STANZA_ERRORS) in self.conditions


@dataclass(frozen=True, slots=True)
class Push:
    """A roster push (RFC 6121 2.1.6): how one item stands now; None: it is removed."""

    to: str
    contact: str
    item: tuple[str, ...] | None

    def fits(self, tree: Tree) -> bool:
        attrs = dict(tree[1])
        if tree[0] != f"{{{CLIENT}}}iq" or attrs.get("type") != "set" or attrs.get("to") != self.to:
            return False
        if "from" in attrs or not attrs.get("id"):
            return False
        query = children(tree)
        if len(query) != 1 or query[0][0] != f"{ROSTER}query" or len(children(query[0])) != 1:
            return False
        contact, shown = roster_item(children(query[0])[0])
        return contact == self.contact and (shown[0] == "remove" if self.item is None else shown == self.item)


@dataclass(frozen=True, slots=True)
class Away:
    """That somebody is not available, in whatever words (RFC 6121 4.3.2)."""

    contact: str
    to: str

    def fits(self, tree: Tree) -> bool:
        attrs = dict(tree[1])
        return (
            tree[0] == f"{{{CLIENT}}}presence"
            and attrs.get("type") == "unavailable"
            and attrs.get("from", "").partition("/")[0] == self.contact
            and attrs.get("to") == self.to
        )


def roster_item(tree: Tree) -> tuple[str, tuple[str, ...]]:
    """An <item/> as (contact, what it says)."""
    attrs = dict(tree[1])
    groups = sorted(str(child[2][0]) for child in children(tree))
    shown = tuple(attrs.get(name, "") for name in ("subscription", "ask", "approved", "name"))
    return attrs.get("jid", ""), (*shown, *groups)
