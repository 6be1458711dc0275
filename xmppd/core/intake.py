"""The one place where what a client wrote becomes what it may have written.

Behind it a stanza can be believed and passed on as it is: `from` is its true sender, nothing in it claims to
come from this server, and an address of ours is written as it is compared everywhere else.
"""

from __future__ import annotations

from collections.abc import Container
from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element

from xmppd import ns
from xmppd.errors import JidError
from xmppd.jid import Jid
from xmppd.xml import build
from xmppd.xml.stanza import LANG, Stanza

if TYPE_CHECKING:
    from xmppd.core.sessions import Session, Sessions

STANZA_ID = f"{{{ns.STANZA_ID}}}stanza-id"
DELAYS = (f"{{{ns.DELAY}}}delay", f"{{{ns.LEGACY_DELAY}}}x")


class Intake:
    """Takes stanzas from clients. `hosts` are the domains whose word is ours."""

    __slots__ = ("_accounts", "_hosts", "_targets")

    def __init__(self, sessions: Sessions, hosts: Container[str]) -> None:
        self._targets = sessions.targets
        self._accounts = sessions.accounts
        self._hosts = hosts

    def take(self, session: Session, stanza: Stanza) -> Stanza:
        """The stanza with its sender and its language in it (RFC 6120 8.1.2.1, 8.1.5), without anything
        that only servers add; messages and presence with `to` in its normal form when it is an address of
        ours.

        The scanner has just made the stanza, and nobody else has seen it: the usual one is completed in
        place.
        """
        attrs, kind = stanza.attrs, stanza.kind
        if "from" in attrs or (session.lang and LANG in attrs):
            stanza = reheaded(stanza, session, stanza.to)
        else:
            if kind == "message":
                stanza.raw = session.message_head + stanza.raw[8:]
            elif kind == "presence":
                stanza.raw = session.presence_head + stanza.raw[9:]
            else:
                stanza.raw = b"<iq" + session.message_head[8:] + stanza.raw[3:]
            attrs["from"] = session.full
            if session.lang:
                attrs[LANG] = session.lang
        if kind == "iq":
            return stanza  # its answer comes from the address as it was written
        to = stanza.to
        if to is not None and to not in self._targets and to not in self._accounts:
            stanza = self._readdressed(session, stanza, to)
        if stanza.is_plain:
            return stanza
        raw = stanza.raw
        # Names of elements cannot be hidden from these, namespaces can: by character references.
        if raw.find(b"stanza-id") >= 0 or raw.find(b"delay") >= 0 or raw.find(b"&#") >= 0:
            return self._honest(session, stanza)
        return stanza

    def resealed(self, session: Session, stanza: Stanza) -> Stanza:
        """What a filter made of a stanza, still from its true sender."""
        return stanza if stanza.attrs.get("from") == session.full else reheaded(stanza, session, stanza.to)

    def _readdressed(self, session: Session, stanza: Stanza, to: str) -> Stanza:
        """With a normal `to` when it is on a host of ours; addresses that are none are refused later."""
        try:
            jid = Jid.parse(to)
        except JidError:
            return stanza
        if jid.full == to or jid.domain not in self._hosts:
            return stanza
        return reheaded(stanza, session, jid.full)

    def _honest(self, session: Session, stanza: Stanza) -> Stanza:
        """Without any <stanza-id/> by us or anybody on a host of ours (XEP-0359 5), and without any <delay/>
        by us or by another account than the sender's (XEP-0203 6).
        """
        forged = {id(child) for child in stanza.xml if self._is_forged(child, session.account)}
        if not forged:
            return stanza
        tree = stanza.xml
        kept = build.element(tree.tag, tree.attrib, tree.text or "")
        kept.extend(child for child in tree if id(child) not in forged)
        return build.stanza_of(kept)

    def _is_forged(self, child: Element, account: str) -> bool:
        if child.tag == STANZA_ID:
            return self._is_ours(child.get("by", ""))
        return child.tag in DELAYS and self._is_ours(child.get("from", ""), account)

    def _is_ours(self, text: str, account: str | None = None) -> bool:
        """Whether this is an address on a host of ours, and not `account`. What is no address may still be
        read as one by somebody less strict.
        """
        try:
            jid = Jid.parse(text.strip())
        except JidError:
            return text.strip().partition("/")[0].rpartition("@")[2].lower() in self._hosts
        return jid.domain in self._hosts and jid.bare != account


def reheaded(stanza: Stanza, session: Session, to: str | None) -> Stanza:
    """The stanza with another start tag: from the session, to that address, in its own or the session's
    language.
    """
    attrs = {**stanza.attrs, "from": session.full}
    if to is not None:
        attrs["to"] = to
    if session.lang:
        attrs.setdefault(LANG, session.lang)
    head = build.start_tag(stanza.kind, attrs)
    return Stanza(stanza.kind, attrs, head + stanza.raw[stanza.tail :], len(head), stanza.payload)
