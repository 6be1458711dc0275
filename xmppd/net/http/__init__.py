"""The server's own HTTP: `routes` decides, `door` is the socket with aiohttp behind it, which only it knows.

May import what xmppd.net may, and what plugins declare (`xmppd.parts.http`).
"""
