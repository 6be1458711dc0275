"""A game's client, with slixmpp: comes by a token, makes friends, says what it plays, hears of others."""

from xml.etree.ElementTree import Element, SubElement

from slixmpp import ClientXMPP
from slixmpp.xmlstream.handler import CoroutineCallback
from slixmpp.xmlstream.matcher import MatchXPath

FRIENDS, GAMES, EVENTS = (f"urn:xmppd:{it}:0" for it in ("friends", "rich-presence", "game-events"))


class Player(ClientXMPP):
    def __init__(self, player: str, token: str, friend: str = "") -> None:
        super().__init__(f"{player}@localhost/game", token)
        self.plugin["feature_mechanisms"].use_mech = "PLAIN"  # the token is the password
        self.friend = friend
        self.add_event_handler("session_start", self.begin)
        for what in (f"iq/{{{FRIENDS}}}friends", f"presence/{{{GAMES}}}games", f"message/{{{EVENTS}}}event"):
            self.register_handler(CoroutineCallback(what, MatchXPath(f"{{jabber:client}}{what}"), self.hear))

    async def ask(self, kind: str, payload: Element) -> None:
        iq = self.make_iq(itype=kind)
        iq.append(payload)
        await iq.send()

    async def begin(self, _: object) -> None:
        self.send_presence()
        await self.ask("get", Element(f"{{{FRIENDS}}}friends"))  # from now on it is told of changes
        await self.ask("set", Element(f"{{{EVENTS}}}enable"))
        if self.friend:
            await self.ask("set", Element(f"{{{FRIENDS}}}request", jid=self.friend))
        game = Element(f"{{{GAMES}}}game", id="chess")
        SubElement(game, f"{{{GAMES}}}state").text = '{"mode": "blitz"}'
        await self.ask("set", game)
        self.event("news", f"{self.boundjid.user} is there")

    async def hear(self, stanza: object) -> None:
        me = self.boundjid.user
        if stanza["type"] == "set":  # an iq, which wants an answer
            stanza.reply().send()
        for it in stanza.xml.iter(f"{{{FRIENDS}}}friend"):
            self.event("news", f"{me} is told: {it.get('jid')} is {it.get('state')}")
            if it.get("state") == "asked":
                await self.ask("set", Element(f"{{{FRIENDS}}}accept", jid=it.get("jid")))
        for it in stanza.xml.iter(f"{{{GAMES}}}game"):
            self.event("news", f"{me} sees {stanza['from'].bare} play {it.get('id')}: {it[0].text}")
        for it in stanza.xml.iter(f"{{{EVENTS}}}event"):
            self.event("news", f"{me} is told of {it.get('resource')}: {it.text}")
