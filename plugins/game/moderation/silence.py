"""What is left of the stanzas of somebody whom nobody is to hear: that he is there, and what he asks for.
What a client writes in a stanza for others is free in nearly all of its places: so all is made anew but for
what is known to say nothing.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Final

from xmppd import ns
from xmppd.plugin import Element, Jid, JidError, Stanza, element, stanza_of

PRESENCE: Final = f"{{{ns.CLIENT}}}presence"
SHOW: Final = f"{{{ns.CLIENT}}}show"
PRIORITY: Final = f"{{{ns.CLIENT}}}priority"
SHOWS: Final = frozenset(("away", "chat", "dnd", "xa"))
TYPES: Final = frozenset(("unavailable", "subscribe", "subscribed", "unsubscribe", "unsubscribed", "probe"))


class Silence:
    """Of accounts on these `domains`, and services on other hosts."""

    def __init__(self, domains: Container[str]) -> None:
        self._domains = domains

    def presence(
        self, presence: Stanza, also: Container[str] = (), left: Container[str] = ()
    ) -> Stanza | None:
        """A presence without a word, but for children that are shown `also`; None where it may not be sent at
        all, since its address says something: that to a host that is no domain of accounts, unless it leaves
        one of the addresses there that were entered before (`left`).
        """
        attrs: dict[str, str] = {}
        if presence.type is not None:
            if presence.type not in TYPES:
                return None
            attrs["type"] = presence.type
        if presence.to is not None:
            try:
                to = Jid.parse(presence.to)
            except JidError:
                return None
            if to.domain not in self._domains and (presence.type != "unavailable" or to.full not in left):
                return None
            attrs["to"] = to.full
        children = known_children(presence.xml) if presence.type is None else []
        children += [child for child in presence.xml if child.tag in also]
        return stanza_of(element(PRESENCE, attrs, *children))

    def may_ask(self, account: str, iq: Stanza, spoken: Container[str]) -> bool:
        """Whether an iq is for himself or the server, and none of those by which something is said to others
        (`spoken`), or asks for something that an account shows to all.
        """
        to = iq.to
        if iq.type == "set" and iq.payload in spoken:
            return False
        if not to or bare_of(to) == account:
            return True
        try:
            jid = Jid.parse(to)
        except JidError:
            return True  # refused by others
        if jid.bare == account:
            return True
        if jid.domain not in self._domains:
            return False
        return not jid.local or (iq.type == "get" and not jid.resource)


def known_children(tree: Element) -> list[Element]:
    """Those of a presence that are one of few words."""
    found = []
    show, priority = (tree.findtext(SHOW) or "").strip(), (tree.findtext(PRIORITY) or "").strip()
    if show in SHOWS:
        found.append(element(SHOW, None, show))
    try:
        number = int(priority)
    except ValueError:
        return found
    if -128 <= number <= 127:
        found.append(element(PRIORITY, None, str(number)))
    return found


def bare_of(address: str) -> str:
    """The account of an address."""
    return address.partition("/")[0]
