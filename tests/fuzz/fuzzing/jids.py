"""Addresses of the fuzzed world, real and not: what they are written like, and what they mean."""

from __future__ import annotations

from xmppd.errors import JidError
from xmppd.jid import Jid

DOMAIN = "localhost"
SLOTS = (
    ("alice", "a1", ""),
    ("alice", "a2", ""),
    ("bob", "b1", ""),
    ("bob", "b 2/x", ""),
    ("carol", "c1", "de"),
    ("dave", "d1", ""),
    ("bärbel", "ü", ""),
    ("mallory", "m1", ""),
    ("mallory", "m2", "en"),
)
"""The clients: account, resource, language of the stream."""

ACCOUNTS = (*dict.fromkeys(name for name, _, _ in SLOTS), "frank")
"""Whom the server knows; frank never comes."""

BARE = tuple(f"{name}@{DOMAIN}" for name in ACCOUNTS)
FULL = tuple(f"{name}@{DOMAIN}/{resource}" for name, resource, _ in SLOTS)

TRICKY: dict[str, tuple[str, str, str] | None] = {
    "ALICE@LOCALHOST": ("alice", DOMAIN, ""),
    "Bob@LocalHost/b1": ("bob", DOMAIN, "b1"),
    "BÄRBEL@localhost": ("bärbel", DOMAIN, ""),
    "ba\u0308rbel@localhost/ü": ("bärbel", DOMAIN, "ü"),
    "bärbel@localhost/u\u0308": ("bärbel", DOMAIN, "ü"),
    "\uff41lice@localhost": ("alice", DOMAIN, ""),
    "alice@localhost/A1": ("alice", DOMAIN, "A1"),
    "alice@localhost/a1/": ("alice", DOMAIN, "a1/"),
    "alice@localhost/a1@bob": ("alice", DOMAIN, "a1@bob"),
    "localhost/alice@localhost": ("", DOMAIN, "alice@localhost"),
    "localhost/announce/online": ("", DOMAIN, "announce/online"),
    "localhost": ("", DOMAIN, ""),
    "LOCALHOST": ("", DOMAIN, ""),
    "localhost.": ("", DOMAIN, ""),
    "nobody@localhost": ("nobody", DOMAIN, ""),
    "nobody@localhost/x": ("nobody", DOMAIN, "x"),
    "alice@localhost/ghost": ("alice", DOMAIN, "ghost"),
    "frank@localhost/ghost": ("frank", DOMAIN, "ghost"),
    "alice@example.org": ("alice", "example.org", ""),
    "alice@localhost.example.org/a1": ("alice", "localhost.example.org", "a1"),
    "example.org": ("", "example.org", ""),
    "alice@localhost/": None,
    "@localhost": None,
    "alice@": None,
    "/a1": None,
    "alice@@localhost": None,
    "alice@bob@localhost": None,
    " alice@localhost": None,
    "alice@localhost ": None,
    "al ice@localhost": None,
    "alice&@localhost": None,
    "alice\u00ad@localhost": None,
    "alice@localhost/\u200b\x7f": None,
    "a" * 1024 + "@localhost": None,
    "a" * 1023 + "@localhost": ("a" * 1023, DOMAIN, ""),
    "alice@localhost/" + "r" * 1024: None,
    "alice@localhost/" + "é" * 511: ("alice", DOMAIN, "é" * 511),
    "x" * 4000: None,
}
"""Addresses that are not what they look like, and their parts (None: no addresses)."""


def parts(text: str) -> tuple[str, str, str] | None:
    """Local part, domain and resource of an address, normalised; None for what is none."""
    if text in TRICKY:
        return TRICKY[text]
    try:
        jid = Jid.parse(text)
    except JidError:
        return None
    return jid.local, jid.domain, jid.resource
