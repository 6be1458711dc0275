"""xmppd: a chat server for games that speaks standard XMPP."""

__version__ = "0.1.0"
