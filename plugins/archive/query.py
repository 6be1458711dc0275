"""What a client asks of an archive: the form of XEP-0313 4 and the page of XEP-0059."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from xmppd import ns
from xmppd.plugin import Element, Jid, JidError, StanzaError, element

from .ids import EPOCH, LAST, bound, from_text
from .words import Words

QUERY: Final = f"{{{ns.MAM}}}query"
FORM: Final = f"{{{ns.DATA_FORM}}}x"
FIELD: Final = f"{{{ns.DATA_FORM}}}field"
VALUE: Final = f"{{{ns.DATA_FORM}}}value"
FLIP: Final = f"{{{ns.MAM}}}flip-page"
SET: Final = f"{{{ns.RSM}}}set"
INDEX: Final = f"{{{ns.RSM}}}index"
AFTER: Final = f"{{{ns.RSM}}}after"
BEFORE: Final = f"{{{ns.RSM}}}before"
MAX: Final = f"{{{ns.RSM}}}max"
TEXT: Final = f"{{{ns.FULLTEXT}}}fulltext"

FIELDS: Final = {
    "with": "jid-single",
    "start": "text-single",
    "end": "text-single",
    "before-id": "text-single",
    "after-id": "text-single",
    "ids": "list-multi",
    "include-groupchat": "boolean",
    TEXT: "text-single",
}
"""Names and types of what may be asked for (XEP-0313 4.1.5, XEP-0431 3.1)."""

MOST_IDS: Final = 100
"""How many messages may be asked for by their ids at once."""
DIGITS: Final = 9

_MOMENT: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,20}))?(Z|[+-]\d\d:\d\d)", re.ASCII)


class Query(NamedTuple):
    """One request. `after` and `before` are exclusive bounds, ids or what ids of a moment begin with (b"":
    none); those of `named` must be in the archive. `reverse`: the last page of what is between, not the
    first. `peer` is the bare JID that messages are with ("": anybody), `address` the full one where that was
    given. `ids`: just these. `size`: how many at most. `words`: only messages that have these.
    """

    id: str
    after: bytes
    before: bytes
    named: tuple[bytes, ...]
    peer: str
    address: str
    ids: tuple[bytes, ...] | None
    reverse: bool
    size: int
    is_flipped: bool
    words: Words | None = None


def form() -> Element:
    """The form for whoever asks what can be asked for (XEP-0313 4.1.5)."""
    kind = element(FIELD, {"type": "hidden", "var": "FORM_TYPE"}, element(VALUE, None, ns.MAM))
    fields = [element(FIELD, {"type": kind, "var": name}) for name, kind in FIELDS.items()]
    validate, opening = f"{{{ns.DATA_VALIDATE}}}validate", f"{{{ns.DATA_VALIDATE}}}open"
    for field in fields:
        if field.get("type") == "list-multi":
            field.append(element(validate, {"datatype": "xs:string"}, element(opening)))
    return element(FORM, {"type": "form"}, kind, *fields)


def query_of(payload: Element, size: int, most: int) -> Query:
    """A request as it was meant: `size` messages where it does not say, and `most` at most. StanzaError for
    what makes no sense (bad-request), is no address (jid-malformed) or no id of ours (item-not-found), or is
    not known here (feature-not-implemented).
    """
    if payload.get("node"):
        raise StanzaError("item-not-found", "There are no nodes here.")
    after = before = b""
    named: list[bytes] = []
    ids, peer, address, text = None, "", "", ""
    if fields := _fields_of(payload.find(FORM)):
        after, before = _bound(fields, "start", 0), _bound(fields, "end", 1)
        after = _named(_single(fields, "after-id"), named, after, max)
        before = _named(_single(fields, "before-id"), named, before, _smaller)
        if "ids" in fields:
            ids = tuple(dict.fromkeys(id_of(text) for text in fields["ids"]))
            if len(ids) > MOST_IDS:
                raise StanzaError("policy-violation", f"Ask for {MOST_IDS} messages at most.")
        peer, address = peer_of(_single(fields, "with"))
        text = _single(fields, TEXT)
    reverse = False
    if (page := payload.find(SET)) is not None:
        if page.find(INDEX) is not None:
            raise StanzaError("feature-not-implemented", "Messages are not counted here; go by their ids.")
        size = min(size_of(page, size), most)
        after = _named(page.findtext(AFTER, ""), named, after, max)
        if (edge := page.findtext(BEFORE)) is not None:
            reverse = True
            before = _named(edge, named, before, _smaller)
    return Query(
        id=payload.get("queryid", ""),
        after=after,
        before=before,
        named=tuple(dict.fromkeys(named)) if named else (),
        peer=peer,
        address=address,
        ids=ids,
        reverse=reverse,
        size=size,
        is_flipped=payload.find(FLIP) is not None,
        words=Words(text) if text else None,
    )


def _fields_of(form: Element | None) -> dict[str, list[str]]:
    """The fields that were filled in."""
    if form is None:
        return {}
    fields: dict[str, list[str]] = {}
    for field in form.iterfind(FIELD):
        name = field.get("var", "")
        if name in fields:
            raise StanzaError("bad-request", f"There is more than one field {name!r}.")
        fields[name] = [value.text or "" for value in field.iterfind(VALUE)]
    if form.get("type") != "submit" or fields.pop("FORM_TYPE", None) != [ns.MAM]:
        raise StanzaError("bad-request", f"This is no form of {ns.MAM} that was filled in.")
    for name in fields:
        if name not in FIELDS:
            raise StanzaError("feature-not-implemented", f"There is no field {name!r}.")
    return {name: values for name, values in fields.items() if values}


def _single(fields: dict[str, list[str]], name: str) -> str:
    values = fields.get(name, [""])
    if len(values) != 1:
        raise StanzaError("bad-request", f"The field {name!r} has one value.")
    return values[0]


def _bound(fields: dict[str, list[str]], name: str, later: int) -> bytes:
    text = _single(fields, name)
    return bound(moment_of(text, name, later)) if text else b""


def moment_of(text: str, name: str, later: int) -> int:
    """The microsecond of a moment (XEP-0082) in the field `name`, or that of the next one `later`: an end is
    itself within. The next one in the unit that it is written in, but no larger than a millisecond, which is
    how clients see moments. StanzaError bad-request.
    """
    match = _MOMENT.fullmatch(text)
    if match is None:
        raise StanzaError("bad-request", f"The field {name!r} is no moment like 2010-07-07T13:23:54Z.")
    second, fraction, zone = match.groups()
    try:
        moment = datetime.fromisoformat(second + ("+00:00" if zone == "Z" else zone))
        seconds = (moment - EPOCH) // timedelta(seconds=1)
    except (ValueError, OverflowError):
        raise StanzaError("bad-request", f"The field {name!r} is a moment that never was.") from None
    micros = (fraction or "")[:6]
    at = seconds * 1_000_000 + int(micros.ljust(6, "0"))
    unit = 1000 if len(micros) <= 3 else 1
    return min(at + later * unit, LAST)


def _named(text: str, named: list[bytes], other: bytes, choose: Callable[[bytes, bytes], bytes]) -> bytes:
    """The closer bound of an id that has to be there, and another one."""
    if not text:
        return other
    id = id_of(text)
    named.append(id)
    return choose(id, other)


def _smaller(one: bytes, other: bytes) -> bytes:
    return min(one, other) if other else one


def id_of(text: str) -> bytes:
    """The id of an archived message; StanzaError item-not-found for what is none."""
    id = from_text(text)
    if id is None:
        raise StanzaError("item-not-found", "No message has this id.")
    return id


def size_of(page: Element, size: int) -> int:
    """How many a client wants; StanzaError bad-request."""
    text = page.findtext(MAX)
    if text is None:
        return size
    if not (text.isascii() and text.isdecimal()) or len(text) > DIGITS:
        raise StanzaError("bad-request", "The size of a page is a number.")
    return int(text)


def peer_of(text: str) -> tuple[str, str]:
    """Whom messages are with: the bare JID, and the full one if it was given; StanzaError jid-malformed."""
    if not text:
        return "", ""
    try:
        jid = Jid.parse(text)
    except JidError as error:
        raise StanzaError("jid-malformed", str(error)) from None
    return jid.bare, jid.full if jid.resource else ""
