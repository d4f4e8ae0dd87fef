"""Neural networks with a memory of their own, in plain PyTorch: DNC, NTM and the recurrent cells under them."""
