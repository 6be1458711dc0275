"""The engine for several machines: Cassandra, by its driver, which is imported here and nowhere else.

It imports the port and what all engines share (`xmppd.store`), errors, and nothing else of ours. Loaded only
when the configuration names it.
"""
