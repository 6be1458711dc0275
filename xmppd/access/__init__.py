"""Who may have commands done, how often, and what became of it: tokens, limits, the log of all that was
done.
"""
