"""What tests of several nodes share."""

from collections.abc import Mapping
from typing import Any
from uuid import uuid4
from xml.etree.ElementTree import Element

from xmppd import ns
from xmppd.testing import Client

CHAT = "<message to='{to}' type='chat'><body>{body}</body></message>"


def several(redis_url: str) -> Mapping[str, Any]:
    """The settings of nodes that hear of each other's changes."""
    return {"cache": {"redis": redis_url, "prefix": f"test-{uuid4().hex[:12]}"}}


async def bodies(client: Client) -> list[str]:
    """What the messages that came say."""
    found = [tree.findtext(f"{{{ns.CLIENT}}}body") for tree in await client.receive_all()]
    return [text for text in found if text is not None]


def presences(stanzas: list[Element]) -> list[bool]:
    """Of each presence among some stanzas whether it says that somebody is there."""
    found = [stanza.get("type") for stanza in stanzas if stanza.tag == f"{{{ns.CLIENT}}}presence"]
    return [kind is None for kind in found if kind in (None, "unavailable")]
