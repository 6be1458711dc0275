"""Streams of clients: negotiation, session and end of each, whatever carries it (RFC 6120 4 to 7).

No sockets, no TLS, no event loop here: a `Stream` talks to a link and a framing (`xmppd.stream.link`). Only
`tcp` imports a link, the one of TCP; everything else may import the core, this folder, and of `net` only
`pace` and `ebb`.
"""
