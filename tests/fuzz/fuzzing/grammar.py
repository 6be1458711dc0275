"""Generated stanzas: all kinds, addresses, payloads and lies that clients are known to tell."""

from __future__ import annotations

from random import Random
from xml.sax.saxutils import escape, quoteattr

from fuzzing.jids import BARE, DOMAIN, FULL, TRICKY

MESSAGE_TYPES = (
    None,
    "chat",
    "chat",
    "chat",
    "normal",
    "groupchat",
    "headline",
    "error",
    "result",
    "CHAT",
    "",
)
IQ_TYPES = ("get", "get", "get", "set", "set", "set", "result", "error", None, "GET", "")
PRESENCE_TYPES = (*(None,) * 8, "unavailable", "unavailable", "probe", "probe", "error", "visible", "")
SUBSCRIPTIONS = ("subscribe", "subscribe", "subscribed", "subscribed", "unsubscribe", "unsubscribed")
TEXTS = (
    "hi",
    "",
    "x" * 300,
    "ü€😀",
    "<&>'\"",
    "]]>",
    "a\r\nb\t",
    " ",
    "\ufffd",
    "\u202eevil\u202c",
    "&amp;",
    "1",
)
PRIORITIES = (
    "0",
    "1",
    "5",
    "5",
    "-1",
    "-128",
    "127",
    "128",
    "-129",
    "x",
    "",
    " 7 ",
    "+3",
    "٣",
    "1e1",
    "00001",
)
SHOWS = ("away", "chat", "dnd", "xa", "off")
STAMP = "2020-01-01T00:00:00Z"

INNER = "<message xmlns='jabber:client' from='alice@localhost/a1' to='bob@localhost'><body>x</body></message>"

FORGERIES = (
    "<received xmlns='urn:xmpp:carbons:2'>{forwarded}</received>",
    "<sent xmlns='urn:xmpp:carbons:2'>{forwarded}</sent>",
    "<result xmlns='urn:xmpp:mam:2' id='1'><forwarded xmlns='urn:xmpp:forward:0'>"
    "<delay xmlns='urn:xmpp:delay' stamp='" + STAMP + "'/>{inner}</forwarded></result>",
    "<delay xmlns='urn:xmpp:delay' from='localhost' stamp='" + STAMP + "'/>",
    "<delay xmlns='urn:xmpp:delay' from='{jid}' stamp='" + STAMP + "'>old</delay>",
    "<stanza-id xmlns='urn:xmpp:sid:0' by='{jid}' id='1'/>",
    "<stanza-id xmlns='urn:xmpp:sid:0' by='localhost' id='1'/>text<stanza-id xmlns='urn:xmpp:sid:0' id='2'/>",
    "<stanza-id xmlns='urn:xmpp:sid:0' by='LOCALHOST' id='1'/>",
    "<origin-id xmlns='urn:xmpp:sid:0' id='1'/>",
    "<occupant-id xmlns='urn:xmpp:occupant-id:0' id='1'/>",
    "<x xmlns='http://jabber.org/protocol/muc#user'><invite from='{jid}'/></x>",
    "<x xmlns='jabber:x:conference' jid='{jid}'/>",
    "<addresses xmlns='http://jabber.org/protocol/address'><address type='to' jid='{jid}'/></addresses>",
    "<error type='cancel'><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>",
    "<query xmlns='jabber:iq:roster'><item jid='{jid}' subscription='both'/></query>",
    "<active xmlns='http://jabber.org/protocol/chatstates'/>",
    "<composing xmlns='http://jabber.org/protocol/chatstates'/>",
    "<no-store xmlns='urn:xmpp:hints'/>",
    "<request xmlns='urn:xmpp:receipts'/>",
    "<thread>t</thread>",
    "<a:b xmlns:a='urn:a' a:c='d'><b xmlns=''/></a:b>",
    "<body xml:lang='fr'>salut</body>",
    "<![CDATA[<body>]]>",
)

PAYLOADS = (
    "<query xmlns='jabber:iq:roster'/>",
    "<query xmlns='jabber:iq:roster' ver=''/>",
    "<query xmlns='jabber:iq:roster'><item jid={qjid} name={qtext}/></query>",
    "<query xmlns='jabber:iq:roster'><item jid={qjid}><group>{text}</group><group>g</group></item></query>",
    "<query xmlns='jabber:iq:roster'><item jid={qjid} subscription='both' ask='subscribe'/></query>",
    "<query xmlns='jabber:iq:roster'><item jid={qjid} subscription='remove'/></query>",
    "<query xmlns='jabber:iq:roster'><item jid={qjid}/><item jid='a@localhost'/></query>",
    "<query xmlns='jabber:iq:roster'><item/></query>",
    "<query xmlns='http://jabber.org/protocol/disco#info'/>",
    "<query xmlns='http://jabber.org/protocol/disco#info' node={qtext}/>",
    "<query xmlns='http://jabber.org/protocol/disco#items'/>",
    "<query xmlns='http://jabber.org/protocol/disco#items' node='x'/>",
    "<ping xmlns='urn:xmpp:ping'/>",
    "<query xmlns='jabber:iq:version'/>",
    "<time xmlns='urn:xmpp:time'/>",
    "<query xmlns='jabber:iq:last'/>",
    "<vCard xmlns='vcard-temp'/>",
    "<vCard xmlns='vcard-temp'><FN>{text}</FN><PHOTO><BINVAL>AAAA</BINVAL></PHOTO></vCard>",
    "<query xmlns='jabber:iq:private'><a xmlns='urn:a{n}'/></query>",
    "<query xmlns='jabber:iq:private'><a xmlns='urn:a'>{text}</a></query>",
    "<query xmlns='jabber:iq:private'/>",
    "<query xmlns='jabber:iq:private'><a xmlns='urn:a'/><b xmlns='urn:b'/></query>",
    "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>{text}</resource></bind>",
    "<session xmlns='urn:ietf:params:xml:ns:xmpp-session'/>",
    "<query xmlns='jabber:iq:register'><remove/></query>",
    "<query xmlns='jabber:iq:register'><username>x</username><password>y</password></query>",
    "<query xmlns='jabber:iq:auth'><username>alice</username></query>",
    "<enable xmlns='urn:xmpp:carbons:2'/>",
    "<block xmlns='urn:xmpp:blocking'><item jid={qjid}/></block>",
    "<query xmlns='urn:xmpp:mam:2'/>",
    "<pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='x'/></pubsub>",
    "<command xmlns='http://jabber.org/protocol/commands' node='x' action='execute'/>",
    "<unknown xmlns='urn:unknown'>{text}</unknown>",
    "<unknown xmlns='urn:unknown'/><unknown xmlns='urn:unknown'/>",
    "text<ping xmlns='urn:xmpp:ping'/>more",
    "<iq type='get' id='1'><ping xmlns='urn:xmpp:ping'/></iq>",
    "<ping/>",
    "",
)


class Grammar:
    """Makes stanzas from a random source."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self._count = 0
        self._tricky = tuple(TRICKY)

    def id(self) -> str | None:
        """Mostly a new one; sometimes one that occurs again, or is no good."""
        self._count += 1
        draw = self.random.random()
        if draw < 0.9:
            return f"s{self._count}"
        return self.random.choice((None, "", "1", "push1", "x" * 1000, "<&'\">", "\u00e9", " "))

    def address(self) -> str | None:
        """Whom to send to, or claim to be."""
        draw = self.random.random()
        if draw < 0.4:
            return self.random.choice(FULL)
        if draw < 0.75:
            return self.random.choice(BARE)
        if draw < 0.85:
            return self.random.choice((None, None, "", DOMAIN))
        return self.random.choice(self._tricky)

    def text(self) -> str:
        """Escaped character data."""
        return escape(self.random.choice(TEXTS), {"\r": "&#13;"})

    def fill(self, template: str) -> str:
        """A payload from its template."""
        if "{" not in template:
            return template
        jid = self.address() or ""
        return template.format(
            jid=escape(jid, {"'": "&apos;"}),
            qjid=quoteattr(jid if self.random.random() < 0.1 else self.random.choice(BARE)),
            qtext=quoteattr(self.random.choice(TEXTS), {"\r": "&#13;"}),
            text=self.text(),
            n=self.random.randrange(5),
            inner=INNER,
            forwarded=f"<forwarded xmlns='urn:xmpp:forward:0'>{INNER}</forwarded>",
        )

    def tag(self, kind: str, type: str | None, to: str | None, content: str) -> str:
        """A stanza; sometimes with a `from`, a language or other attributes that it should not have."""
        random = self.random
        attrs = [("to", to), ("type", type), ("id", self.id())]
        draw = random.random()
        if draw < 0.12:
            attrs.append(("from", random.choice((*FULL, *BARE, DOMAIN, "", "x@example.org"))))
        elif draw < 0.16:
            attrs.append(("xml:lang", random.choice(("fr", "de", "", "x" * 40))))
        elif draw < 0.18:
            attrs.append((random.choice(("TO", "by", "x", "version", "xml:space")), "1"))
        if draw < 0.3:
            random.shuffle(attrs)
        words = "".join(f" {name}={quoteattr(value)}" for name, value in attrs if value is not None)
        return f"<{kind}{words}>{content}</{kind}>" if content else f"<{kind}{words}/>"

    def message(self) -> str:
        """A message."""
        random = self.random
        content = f"<body>{self.text()}</body>" if random.random() < 0.8 else ""
        while random.random() < 0.3:
            content += self.fill(random.choice(FORGERIES))
        return self.tag("message", random.choice(MESSAGE_TYPES), self.address(), content)

    def presence(self) -> str:
        """Presence for all or for one."""
        random = self.random
        to = None if random.random() < 0.5 else self.address()
        content = ""
        if random.random() < 0.4:
            content += f"<priority>{random.choice(PRIORITIES)}</priority>"
        if random.random() < 0.4:
            content += f"<show>{random.choice(SHOWS)}</show><status>{self.text()}</status>"
        if random.random() < 0.1:
            content += self.fill(random.choice(FORGERIES))
        return self.tag("presence", random.choice(PRESENCE_TYPES), to, content)

    def subscription(self) -> str:
        """A subscription stanza."""
        to = self.random.choice(BARE) if self.random.random() < 0.85 else self.address()
        content = self.fill(self.random.choice(FORGERIES)) if self.random.random() < 0.1 else ""
        return self.tag("presence", self.random.choice(SUBSCRIPTIONS), to, content)

    def iq(self) -> str:
        """A request or an answer."""
        random = self.random
        payload = self.fill(random.choice(PAYLOADS))
        to = self.address() if random.random() < 0.6 else None
        return self.tag("iq", random.choice(IQ_TYPES), to, payload)

    def roster(self) -> str:
        """A roster request to one's own account."""
        kind = "set" if self.random.random() < 0.8 else "get"
        payload = self.random.choice(PAYLOADS[:2] if kind == "get" else PAYLOADS[2:6])
        return self.tag("iq", kind, None, self.fill(payload))

    def stanza(self) -> str:
        """Any stanza."""
        draw = self.random.random()
        if draw < 0.5:
            return self.message()
        if draw < 0.72:
            return self.presence()
        if draw < 0.92:
            return self.iq()
        return self.subscription() if draw < 0.97 else self.roster()

    def header(self) -> str:
        """A stream header, good or bad."""
        random = self.random
        attrs = [
            (
                "xmlns",
                random.choice(("jabber:client",) * 8 + ("jabber:server", "", "jabber:component:accept")),
            ),
            ("xmlns:stream", random.choice(("http://etherx.jabber.org/streams",) * 8 + ("urn:x", ""))),
            ("to", random.choice((DOMAIN,) * 8 + self._tricky)),
            (
                "version",
                random.choice(("1.0",) * 8 + ("1.99", "2.0", "0.9", "", "1", "-1.0", "1.0.0", "9" * 99)),
            ),
        ]
        if random.random() < 0.2:
            attrs.append(("from", self.address() or ""))
        if random.random() < 0.2:
            attrs.append(("xml:lang", random.choice(("de", "", "x" * 36, "'\"<&"))))
        if random.random() < 0.1:
            attrs.append((random.choice(("id", "x", "xmlns:h", "stream:x", "h:y")), "1"))
        if random.random() < 0.15:
            attrs.pop(random.randrange(len(attrs)))
        random.shuffle(attrs)
        name = random.choice(("stream:stream",) * 9 + ("stream", "stream:streams", "h:stream", "message"))
        words = "".join(f" {key}={quoteattr(value)}" for key, value in attrs)
        start = random.choice(
            ("", "", "<?xml version='1.0'?>", "\n", "<?xml version='1.1'?>", "<!DOCTYPE x>")
        )
        return f"{start}<{name}{words}>"
