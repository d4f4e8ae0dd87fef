"""The benchmarks of `engram bench`, and the public implementations that they compare with."""
