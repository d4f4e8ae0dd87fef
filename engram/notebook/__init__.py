"""A notebook's way in: models of checkpoints, run in this process, without a server.

import engram

model = engram.load("dnc-copy")
run = model.run(model.sample(seed=1))
run.plot()
engram.compare([engram.load("ntm-copy"), model])
"""

from engram.notebook.comparison import Comparison, compare
from engram.notebook.finding import load
from engram.notebook.model import Model, Session
from engram.notebook.run import Run

__all__ = ["Comparison", "Model", "Run", "Session", "compare", "load"]
