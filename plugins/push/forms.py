"""What push notifications are made of (XEP-0357): the registration that is asked for, the request that tells
an app server, and which messages are worth one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from xmppd import ns
from xmppd.plugin import Element, Jid, JidError, Stanza, StanzaError, element

FORM: Final = f"{{{ns.DATA_FORM}}}x"
FIELD: Final = f"{{{ns.DATA_FORM}}}field"
VALUE: Final = f"{{{ns.DATA_FORM}}}value"
BODY: Final = f"{{{ns.CLIENT}}}body"

_ABOUT_ANOTHER: Final = (f"{{{ns.RETRACTION}}}retract", f"{{{ns.REACTIONS}}}reactions")
"""Children of a message that is about another one, whatever its body says to older clients."""
_SEALED: Final = (
    f"{{{ns.OMEMO}}}encrypted/{{{ns.OMEMO}}}payload",
    f"{{{ns.OMEMO_2}}}encrypted/{{{ns.OMEMO_2}}}payload",
)
_READABLE: Final = (
    f"{{{ns.CLIENT}}}subject",
    f"{{{ns.OPENPGP}}}openpgp",
    f"{{{ns.OLD_OPENPGP}}}x",
    f"{{{ns.CONFERENCE}}}x",
    f"{{{ns.MUC_USER}}}x/{{{ns.MUC_USER}}}invite",
    f"{{{ns.JINGLE_MESSAGE}}}propose",
    *_SEALED,
)
"""What else than a body somebody would want to know of at once."""
_RECEIVED: Final = f"{{{ns.CARBONS}}}received/{{{ns.FORWARD}}}forwarded/{{{ns.CLIENT}}}message"

SHOWN: Final = 200
"""So many characters of a body are told, where bodies are."""


class Service(NamedTuple):
    """Where a registration has notifications published; the node may be ""."""

    jid: str
    node: str


class Seen(NamedTuple):
    """What a notification may tell of a message."""

    sender: str
    body: str


def asked(payload: Element) -> Service:
    """What `<enable/>` or `<disable/>` names (XEP-0357 5); StanzaError."""
    try:
        jid = Jid.parse(payload.get("jid", ""))
    except JidError as error:
        raise StanzaError("jid-malformed", str(error)) from None
    return Service(jid.full, payload.get("node", ""))


def options_of(payload: Element) -> str:
    """The publish options of `<enable/>` as they are kept, "" for none; StanzaError."""
    forms = payload.findall(FORM)
    if not forms:
        return ""
    fields = {
        field.get("var", ""): [value.text or "" for value in field.iterfind(VALUE)]
        for field in forms[0].iterfind(FIELD)
    }
    if len(forms) > 1 or fields.pop("FORM_TYPE", None) != [ns.PUBSUB_OPTIONS] or "" in fields:
        raise StanzaError("bad-request", "Publish options are one form of their type.")
    return json.dumps(fields)


def publish(service: Service, options: str, summary: Mapping[str, str]) -> Element:
    """The payload that publishes a notification with this summary (XEP-0357 7)."""
    notification = element(f"{{{ns.PUSH}}}notification")
    if summary:
        notification.append(_form(ns.PUSH_SUMMARY, {name: [value] for name, value in summary.items()}))
    item = element(f"{{{ns.PUBSUB}}}item", None, notification)
    node = {"node": service.node} if service.node else {}
    request = element(f"{{{ns.PUBSUB}}}pubsub", None, element(f"{{{ns.PUBSUB}}}publish", node, item))
    if options:
        form = _form(ns.PUBSUB_OPTIONS, json.loads(options))
        request.append(element(f"{{{ns.PUBSUB}}}publish-options", None, form))
    return request


def _form(kind: str, fields: Mapping[str, Sequence[str]]) -> Element:
    return element(
        FORM, {"type": "submit"}, *(_field(*one) for one in ({"FORM_TYPE": [kind]} | {**fields}).items())
    )


def _field(var: str, values: Iterable[str]) -> Element:
    hidden: dict[str, Any] = {"type": "hidden"} if var == "FORM_TYPE" else {}
    return element(FIELD, {"var": var, **hidden}, *(element(VALUE, None, value) for value in values))


def seen_in(raw: bytes, account: str) -> Seen | None:
    """What there is to tell of a stanza that this account was sent; None for what nobody has to be woken for:
    all but messages in which there is something new to read, and copies of those that it received.
    """
    if not raw.startswith(b"<message"):
        return None
    message = Stanza("message", {}, raw).xml
    if message.get("from") == account and (copied := message.find(_RECEIVED)) is not None:
        message = copied
    if message.get("type", "normal") in ("error", "headline"):
        return None
    if any(message.find(name) is not None for name in _ABOUT_ANOTHER):
        return None
    body = message.findtext(BODY) or ""
    if not body and all(message.find(name) is None for name in _READABLE):
        return None
    return Seen(message.get("from", ""), body[:SHOWN])
