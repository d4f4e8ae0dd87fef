"""Make ONNX graphs of one step with plain PyTorch: an LSTM policy, and a GRU that predicts a series.

python examples/graphs/make.py policy runs/graphs        # writes runs/graphs/policy.onnx
python examples/graphs/make.py series runs/graphs        # trains for some seconds, writes runs/graphs/series.onnx
"""

import argparse
import logging
import math
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn


class Policy(nn.Module):
    """obs [B, 48], h_in and c_in [2, B, 64] -> actions [B, 12], h_out, c_out."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(48, 64, num_layers=2)
        self.actor = nn.Sequential(nn.Linear(64, 32), nn.ELU(), nn.Linear(32, 12))

    def forward(self, obs: Tensor, h_in: Tensor, c_in: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        out, (h_out, c_out) = self.rnn(obs.unsqueeze(0), (h_in, c_in))
        return self.actor(out.squeeze(0)), h_out, c_out


class Series(nn.Module):
    """x [B, T, 1], h [1, B, 32] -> the predictions y [B, T, 1] of the values after x, next_h."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(1, 32, batch_first=True)
        self.head = nn.Linear(32, 1)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        out, next_h = self.gru(x, h)
        return self.head(out), next_h


def make_policy(file: Path) -> None:
    """Export as robot learning libraries do: no dynamic axes, an old opset, PyTorch's older exporter."""
    h = torch.zeros(2, 1, 64)
    names = {"input_names": ["obs", "h_in", "c_in"], "output_names": ["actions", "h_out", "c_out"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the older exporter is deprecated, and warns of a batch of 1
        torch.onnx.export(Policy().eval(), (torch.zeros(1, 48), h, h), file, opset_version=11, dynamo=False, **names)


def make_series(file: Path) -> None:
    """Train on noisy sine waves, and export by PyTorch's newer exporter, with a dynamic batch."""
    model = Series()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(100):
        phases, speeds = torch.rand(32, 1) * 2 * math.pi, 0.1 + torch.rand(32, 1) * 0.4
        waves = torch.sin(phases + speeds * torch.arange(41)).unsqueeze(2)
        predictions, _ = model(waves[:, :-1] + 0.05 * torch.randn(32, 40, 1), torch.zeros(1, 32, 32))
        loss = (predictions - waves[:, 1:]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"mean squared error {loss.item():.4f}")
    batch = torch.export.Dim("batch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PyTorch about itself
        torch.onnx.export(
            model.eval(),
            (torch.zeros(2, 1, 1), torch.zeros(1, 2, 32)),
            file,
            input_names=["x", "h"],
            output_names=["y", "next_h"],
            dynamic_shapes={"x": {0: batch}, "h": {1: batch}},
            external_data=False,
            verbose=False,
        )


MAKERS = {"policy": make_policy, "series": make_series}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Make an ONNX graph of one step with plain PyTorch.")
    parser.add_argument("name", choices=MAKERS)
    parser.add_argument("out", type=Path, help="the directory of the graph")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    path = options.out / f"{options.name}.onnx"
    MAKERS[options.name](path)
    print(f"{path}: licence Apache-2.0, as this script")
