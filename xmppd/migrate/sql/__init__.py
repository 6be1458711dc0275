"""SQL of other servers: dumps as text, SQLite files and live databases, as one database to read from.

May import the rest of `xmppd.migrate` but its formats.
"""
