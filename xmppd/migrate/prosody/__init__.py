"""What Prosody keeps, whatever its storage: Lua, stanzas as tables, and what its stores mean.

May import the rest of `xmppd.migrate` but its formats.
"""
