"""Whole updates of the trainer, from the data to the metrics, beside those of public implementations.

Ours are those of `engram train`: data, unrolling, loss, errors, gradients, clipping, optimiser, progress and metrics.
Theirs are those of their authors' scripts. No weights are saved or validated. All get sequences of the same lengths
and take turns, and nothing is timed before its losses are checked and it has been seen to learn.
"""
