"""The one table of originals: format -> the functions that make a model of its variables."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from training.importers.deepmind_dnc import deepmind_dnc
from training.importers.dnc_pytorch import dnc_pytorch, dnc_pytorch_config
from training.importers.ntm_lasagne import ntm_lasagne
from training.importers.pytorch_ntm import pytorch_ntm, pytorch_ntm_config
from training.importers.tf_rnn_cell import tf_rnn_cell
from training.importers.variables import Imported, Variables


@dataclass(frozen=True)
class Format:
    """build makes the model of a config and its variables. deduce, if there is one, returns the config values that
    follow from the variables; such variables may also come as a state_dict, in a file that torch saved."""

    build: Callable[[Mapping[str, Any], Variables], Imported]
    deduce: Callable[[Variables], dict[str, Any]] | None = None


FORMATS = {
    "deepmind-dnc": Format(deepmind_dnc),
    "dnc-pytorch": Format(dnc_pytorch, deduce=dnc_pytorch_config),
    "ntm-lasagne": Format(ntm_lasagne),
    "pytorch-ntm": Format(pytorch_ntm, deduce=pytorch_ntm_config),
    "tf-rnn-cell": Format(tf_rnn_cell),
}
