"""Entity time (XEP-0202): the server's clock and its offset from UTC, in the formats of XEP-0082."""

from __future__ import annotations

from datetime import UTC, datetime

from xmppd import ns
from xmppd.plugin import Element, Plugin, Request, element, iq_get, utc_stamp

TIME = f"{{{ns.TIME}}}time"


class Time(Plugin):
    """Tells the time."""

    @iq_get(TIME)
    def time(self, request: Request) -> Element:
        """XEP-0202 2."""
        utc = datetime.fromtimestamp(self.now(), UTC)
        offset = utc.astimezone().strftime("%z")
        return element(
            TIME,
            None,
            element(f"{{{ns.TIME}}}tzo", None, f"{offset[:3]}:{offset[3:5]}"),
            element(f"{{{ns.TIME}}}utc", None, utc_stamp(self.now())),
        )
