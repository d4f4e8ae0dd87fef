"""Where sessions are kept: their inputs, snapshots of their states, and what became of them."""
