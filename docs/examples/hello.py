"""Greets whoever comes online with a message from the server."""

from xmppd import hooks, ns
from xmppd.plugin import Plugin, PluginConfig, Session, element


class HelloConfig(PluginConfig):
    greeting: str = "Welcome"


class Hello(Plugin):
    Config = HelloConfig

    @hooks.session_available
    async def greet(self, session: Session) -> None:
        name, _, domain = session.account.partition("@")
        body = element(f"{{{ns.CLIENT}}}body", None, f"{self.config.greeting}, {name}!")
        address = {"from": domain, "to": session.full}
        await self.server.send(element(f"{{{ns.CLIENT}}}message", address, body))
