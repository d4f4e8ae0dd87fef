"""The command line of Engram."""
