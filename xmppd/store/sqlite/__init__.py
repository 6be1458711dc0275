"""The engine of one file: SQLite with group commit, imported here and nowhere else.

It imports the port and what all engines share (`xmppd.store`), errors, and nothing else of ours.
"""
