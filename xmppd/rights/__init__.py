"""What a person may ask for: all that is kept of an account in one file, its erasure, another address for it.

All of it goes by what each table declares of the person it is about (`xmppd.store.person`).
"""
