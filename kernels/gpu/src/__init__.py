"""The kernels, in Triton's language: nothing here runs by itself."""
