"""Continuous batching of a model's sessions: an event loop, and a thread that owns the back ends."""
