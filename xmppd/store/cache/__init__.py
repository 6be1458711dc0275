"""The cache of rosters that nodes share, in Redis; loaded only when the configuration names one.

It implements a port of the core (`xmppd.core.roster.tier`), and imports beside that `xmppd.store` and errors.
"""
