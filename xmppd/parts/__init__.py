"""What the body of a plugin declares, piece by piece; loading binds each to one instance.

May import the core and what runs plugins (`xmppd.server`, `xmppd.scope`), never the loader or a plugin.
"""
