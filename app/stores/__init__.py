"""The stores of sessions: their inputs, snapshots of their states, and the reasons of their ends."""
