"""Rosters in the form in which Prosody writes nearly all of them: read by the contact, not by the value.

What has another form (a request that waits, a key that is seldom there, another layout) is left to
`xmppd.migrate.prosody.lua` as a whole: for what is read here both find the same.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from xmppd.migrate.prosody.lua import unescaped
from xmppd.migrate.prosody.stores import PENDING, SUBSCRIPTIONS, is_text
from xmppd.migrate.record import Contact

LONGEST: Final = 1 << 18
"""Bytes of a file that is read in this way."""

_STRING = r'[^"\\\r\n]*+(?:\\[^\r\n][^"\\\r\n]*+)*'
_GROUPS = rf'(?:\t\t\t\["{_STRING}"\] = true;\n)*'
_FIELDS = (
    rf'"name"\] = "({_STRING})"',
    r'"subscription"\] = "(none|to|from|both)"',
    r'"ask"\] = "(subscribe)"',
    rf'"groups"\] = \{{((?:\n{_GROUPS}\t\t)?)\}}',
)
_BEGIN, _END = "return {\n", "};\n"
_CONTACT = re.compile(rf'\t\["({_STRING})"\] = \{{\n(?:\t\t\[(?:{"|".join(_FIELDS)});\n)*\t\}};\n')
_METADATA = re.compile(
    r'\t\[false\] = \{\n(?:\t\t\["version"\] = [0-9]{1,15};\n|\t\t\["pending"\] = \{(?:\n\t\t)?\};\n)*\t\};\n'
)
_BEFORE_GROUPS, _BETWEEN_GROUPS, _BEHIND_GROUPS = '\n\t\t\t["', '"] = true;\n\t\t\t["', '"] = true;\n\t\t'
_NO_GROUPS = ("", "\n\t\t", None)


def usual_contacts(data: bytes) -> list[Contact] | None:
    """The contacts of a roster's file; None where it has another form, or is broken."""
    try:
        text = data.decode() if len(data) <= LONGEST else ""
    except UnicodeDecodeError:
        return None
    if not (text.startswith(_BEGIN) and text.endswith(_END)):
        return None
    at, end, has_escapes = len(_BEGIN), len(text) - len(_END), "\\" in text
    match = _CONTACT.match
    found: dict[str, Contact] = {}
    while at < end:
        item = match(text, at)
        if item is None:
            item = _METADATA.match(text, at)
            if item is None:
                return None
            at = item.end()
            continue
        at = item.end()
        jid, name, subscription, ask, groups = item.groups()
        names: list[str] = []
        if groups not in _NO_GROUPS:
            names = groups[len(_BEFORE_GROUPS) : -len(_BEHIND_GROUPS)].split(_BETWEEN_GROUPS)
        if has_escapes and "\\" in item[0]:
            texts = _texts((jid, name or "", *names))
            if texts is None:
                return None
            jid, written, *names = texts
            name = None if name is None else written
        if len(names) > 1:
            names = list(dict.fromkeys(names))
        state = SUBSCRIPTIONS[subscription or "none"]
        found[jid] = Contact(jid, state, ask is not None, False, False, name, names)
    return None if at != end or PENDING in found else list(found.values())


def _texts(written: Sequence[str]) -> list[str] | None:
    """What strings mean; None where one of them is no text."""
    texts = [unescaped(text) for text in written]
    whole = [text for text in texts if text is not None]
    return whole if len(whole) == len(texts) and is_text("".join(whole)) else None
