"""What computes the steps: each back end keeps the states of its sessions in an arena of its own."""
