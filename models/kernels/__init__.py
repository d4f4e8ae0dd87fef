"""The step of a model as one fused kernel in C: `engram.c`, built with the package, called with pointers only.

The torch models say what is computed; the tests hold the kernel to them. Where there is no library for this machine, or
a model has an option that the kernel does not know, steps are computed by torch or ONNX Runtime.
"""
