"""Documents of XEP-0227 ("portable import/export"), read and written.

May import the rest of `xmppd.migrate` but its formats.
"""
