"""ONNX graphs of one recurrent step, from outside, as checkpoints of Engram.

    FILE   x, h -> y, h'          any names, any batch axes, any dtypes; constants, several inputs, old opsets
      |    read (`files`), completed (`guess`), constants bound and Ifs folded (`prepare`)
      v
    model.onnx   inputs, state.* -> outputs, next.*, trace.*      rows first, written by `wrap` in one of the forms:
                 batched   the graph itself, for all rows at once
                 scan      the graph for one row, in an ONNX Scan over the rows
                 loop      the graph for one row, which the back end runs once for each

A declared shape proves nothing: `verify` runs every form beside the file itself, and the first that agrees is taken.
"""

from training.graphs.importing import ImportedGraph, described, import_graph, import_step
from training.graphs.spec import GraphSpec, to_toml

__all__ = ["GraphSpec", "ImportedGraph", "described", "import_graph", "import_step", "to_toml"]
