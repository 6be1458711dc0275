"""Whose messages are kept: an account as the owner of an archive, and its preferences (XEP-0441)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from xmppd import ns
from xmppd.plugin import Element, Jid, JidError, StanzaError, Through, element

PREFS: Final = f"{{{ns.MAM}}}prefs"
JID: Final = f"{{{ns.MAM}}}jid"
ALWAYS, NEVER, ROSTER = "always", "never", "roster"
MOST_JIDS: Final = 200
"""Addresses of a list."""
OWNER: Final = Through("archive_owners", ("uid", "erased"))
ARCHIVE: Final = Through("archive_owners", ("uid", "erased"), rest="archive_months")
"""Whose rows are those of a number: of tables with one partition for each, and of messages."""


@dataclass(frozen=True, slots=True)
class Preferences:
    """`standard` is what is done with messages of whoever is on neither list."""

    standard: str = ALWAYS
    always: frozenset[str] = frozenset()
    never: frozenset[str] = frozenset()

    @property
    def keeps_all(self) -> bool:
        """Whether messages are kept whoever they are with."""
        return self.standard == ALWAYS and not (self.always or self.never)

    def keeps(self, address: str) -> bool | None:
        """Whether messages with this address are kept; None: if it is in the roster (XEP-0441 2.2)."""
        if self.keeps_all:
            return True
        bare = address.partition("/")[0]
        for names, is_kept in ((self.never, False), (self.always, True)):
            if address in names or bare in names:
                return is_kept
        return None if self.standard == ROSTER else self.standard == ALWAYS

    def xml(self) -> Element:
        """As a client is shown them."""
        lists = (
            element(f"{{{ns.MAM}}}{name}", None, *(element(JID, None, jid) for jid in sorted(jids)))
            for name, jids in ((ALWAYS, self.always), (NEVER, self.never))
        )
        return element(PREFS, {"default": self.standard}, *lists)

    def columns(self) -> dict[str, str]:
        """As they are stored."""
        lists = {ALWAYS: "\n".join(sorted(self.always)), NEVER: "\n".join(sorted(self.never))}
        return {"standard": self.standard, **lists}


@dataclass(frozen=True, slots=True)
class Owner:
    """An account of which messages are archived. `uid` names its archive: no account has the one of another,
    and whoever has the name next has another one, so that nothing late can come into a wrong archive.
    """

    uid: int
    preferences: Preferences


def owner_of(row: Mapping[str, Any]) -> Owner:
    """The owner in a row of the table."""
    always, never = (frozenset(filter(None, (row[name] or "").split("\n"))) for name in (ALWAYS, NEVER))
    return Owner(row["uid"], Preferences(row["standard"] or ALWAYS, always, never))


def preferences_of(payload: Element) -> Preferences:
    """What a client wants; StanzaError bad-request, jid-malformed, policy-violation."""
    standard = payload.get("default", "")
    if standard not in (ALWAYS, NEVER, ROSTER):
        raise StanzaError("bad-request", "The default is always, never or roster.")
    lists = {name: _jids(payload.find(f"{{{ns.MAM}}}{name}")) for name in (ALWAYS, NEVER)}
    return Preferences(standard, lists[ALWAYS], lists[NEVER] - lists[ALWAYS])


def _jids(found: Iterable[Element] | None) -> frozenset[str]:
    texts = [child.text or "" for child in found or () if child.tag == JID]
    if len(texts) > MOST_JIDS:
        raise StanzaError("policy-violation", f"A list has {MOST_JIDS} addresses at most.")
    try:
        return frozenset(Jid.parse(text).full for text in texts)
    except JidError as error:
        raise StanzaError("jid-malformed", str(error)) from None
