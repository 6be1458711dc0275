"""The operator's side: one registry of commands behind every door."""
