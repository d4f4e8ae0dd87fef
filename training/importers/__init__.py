"""Weights of the original implementations as checkpoints of Engram.

A file is an npz of the original's variables by their own names, with or without `params/` before them, and `config`, a
JSON string; of PyTorch's models also a state_dict as torch saves it, by itself or in what a trainer saved. Every
variable must be there in its shape, and none may be left over. Sources: google-deepmind/dnc, mthrok/dnc_pytorch,
snipsco/ntm-lasagne, loudinthecloud/pytorch-ntm, the cells of TensorFlow's tf.nn.rnn_cell.
"""

from training.importers.files import import_checkpoint, read_original
from training.importers.formats import FORMATS
from training.importers.variables import Imported, ImportFailed

__all__ = ["FORMATS", "ImportFailed", "Imported", "import_checkpoint", "read_original"]
