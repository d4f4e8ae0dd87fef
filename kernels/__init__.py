"""Steps and whole sequences as fused kernels in C: `src/engram.c`, built with the package, called with pointers only.

The torch models define the results; the tests hold the kernels to them. Where there is no library for this machine,
or a model has an option that the kernels do not know, torch or ONNX Runtime compute.
"""
