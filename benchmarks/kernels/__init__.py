"""The fused kernels beside other implementations of the same models, and beside the limits of the machine.

Nothing is timed before its outputs, or its gradients, are checked. Figures are medians of rounds in which the
candidates take turns: on a busy machine, only the ratios count.
"""
