"""Other servers' accounts and rosters, read and written: pure readers that yield accounts, and no store.

A reader turns files into `Account` records (`record`), as its source has them; `prepare` makes of them what
this server can hold. Nothing here may import `xmppd.store` or know how an account is written.
"""
