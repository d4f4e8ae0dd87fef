"""Hostile clients of a server that is reached only through its port.

    hostile client   garbage ... garbage, drop         garbage, drop
    neighbour                             step, step                 step, step    outputs compared with /infer

`python -m benchmarks.hostile` runs them for as long as one likes; the tests run a short form. Every case follows from a
seed and its number, and the error of a case prints the command that repeats it.
"""
