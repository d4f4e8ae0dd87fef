"""Step many sessions of one model together: asyncio on one side, the thread that owns the back end on the other."""
