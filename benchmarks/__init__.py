"""What `engram bench` measures on this machine, and the public implementations that it is measured beside."""
