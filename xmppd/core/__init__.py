"""Sessions, routing, rosters, presence and messages. No sockets, no drivers."""
