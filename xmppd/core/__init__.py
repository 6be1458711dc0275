"""Accounts, sessions, routing, presence and messages; rosters have a folder of their own.

It imports `xml`, `stream`, the hooks and the store's port; no sockets, no drivers, no tasks.
"""
