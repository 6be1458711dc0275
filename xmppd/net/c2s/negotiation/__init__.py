"""What a client may ask of its stream, one module for each: rows of the table in `xmppd.stream.rows`.

A new step is a new module here, or a plugin, and one line in `xmppd/app.py`. Imports are those of a stream.
"""
