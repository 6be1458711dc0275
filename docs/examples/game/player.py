"""A game's client, with slixmpp: logs in by a token, finds a friend, says what it plays, hears of matches."""

from xml.etree.ElementTree import Element, SubElement

from slixmpp import ClientXMPP
from slixmpp.xmlstream.handler import Callback
from slixmpp.xmlstream.matcher import MatchXPath

FRIENDS, PRESENCE, EVENTS = (f"urn:xmppd:{it}:0" for it in ("friends", "rich-presence", "game-events"))


class Player(ClientXMPP):
    def __init__(self, player: str, token: str, friend: str = "") -> None:
        super().__init__(f"{player}@localhost/game", token)
        self.plugin["feature_mechanisms"].use_mech = "PLAIN"  # the token is the password
        self.friend = friend
        self.add_event_handler("session_start", self.begin)
        event = MatchXPath(f"{{jabber:client}}message/{{{EVENTS}}}event")
        self.register_handler(Callback("events", event, self.heard))

    async def ask(self, payload: Element) -> Element:
        iq = self.make_iq_set()
        iq.append(payload)
        return (await iq.send()).xml

    async def begin(self, _: object) -> None:
        self.send_presence()
        await self.ask(Element(f"{{{EVENTS}}}enable"))
        if self.friend:
            await self.ask(Element(f"{{{FRIENDS}}}request", jid=self.friend))
        game = Element(f"{{{PRESENCE}}}game", id="chess")
        SubElement(game, f"{{{PRESENCE}}}state").text = '{"mode": "blitz"}'
        await self.ask(game)
        self.event("ready")

    def heard(self, message: object) -> None:
        self.event("match", message.xml[0].text)
