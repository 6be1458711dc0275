"""Several nodes as one server: what they tell each other, how it gets there, and who is where.

Of the core it knows `xmppd/core/cluster.py`, the port that it implements, and what that names; it is tied
together by `xmppd/app.py`. Nothing here knows Redis: the list of nodes is a port, too. Only
`xmppd/cluster/link.py` knows sockets and asyncio; whatever else is here takes bytes and a clock and gives
records and bytes.
"""
