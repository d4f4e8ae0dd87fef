"""Steps and whole sequences as fused kernels in C: `engram.c`, built with the package, called with pointers only.

The torch models say what is computed; the tests hold the kernels to them. Where there is no library for this machine,
or a model has an option that the kernels do not know, torch or ONNX Runtime compute.
"""
