"""Serve the models: sessions with a memory of their own, batched together, streamed and looked into."""
