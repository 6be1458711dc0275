"""Rosters that last: items and their log in the store, whole rosters in memory and in a shared cache, the
tables of RFC 6121 appendix A, and what operators do with them.

It knows accounts and the store's port, and nothing of sessions, streams or sockets; who tells clients of a
change is `xmppd.core.contacts`.
"""
