"""Software version (XEP-0092) of the server."""

from __future__ import annotations

import platform

from xmppd import ns
from xmppd.plugin import Element, Plugin, PluginConfig, Request, element, iq_get

QUERY = f"{{{ns.VERSION}}}query"


class VersionConfig(PluginConfig):
    """`show_os`: also tell the operating system, which may help an attacker (XEP-0092 5)."""

    show_os: bool = False


class Version(Plugin):
    """Tells name and version of the server to anybody with a session."""

    Config = VersionConfig

    @iq_get(QUERY)
    def version(self, request: Request) -> Element:
        """XEP-0092 2."""
        parts = {"name": self.server.name, "version": self.server.version}
        if self.config.show_os:
            parts["os"] = f"{platform.system()} {platform.release()}"
        return element(QUERY, None, *(element(f"{{{ns.VERSION}}}{k}", None, v) for k, v in parts.items()))
