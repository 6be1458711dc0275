"""Durable storage: declarations and the port in `table`, one folder per engine, and what engines share.

It imports nothing of ours but `xmppd.errors`. The drivers of SQLite, Cassandra and Redis are imported in the
folders named after them.
"""
