"""Stream a WAV file through Silero VAD, draw the probability of speech, and compare it with onnxruntime's own loop.

python examples/graphs/fetch.py silero runs/graphs
engram import --format onnx runs/graphs/silero.onnx --spec examples/graphs/silero.toml --out runs/served/silero
engram serve --checkpoints runs/served                   # in another terminal
python examples/graphs/silero.py runs/graphs/silero.onnx speech.wav

Without a WAV file it streams buzzes with the pitch and the resonances of a voice, between silences: the model takes
little but their beginnings for speech. A recording is one channel of 16 bits at 16,000 samples per second.
"""

import argparse
import sys
import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from own_loops import Array, run_alone

from engram_client import Client

RATE, HOP, SCALE = 16_000, 512, 1 / 32_768


def read_wav(path: Path) -> Array:
    """Return the samples of a WAV file, int16."""
    with wave.open(str(path), "rb") as file:
        found = file.getframerate(), file.getnchannels(), file.getsampwidth()
        if found != (RATE, 1, 2):
            sys.exit(f"{path}: expected {RATE} samples per second, 1 channel, 2 bytes a sample, got {found}")
        return np.frombuffer(file.readframes(file.getnframes()), "<i2")


def buzzes() -> Array:
    """Return 4 s of silence and of buzzes like vowels in turns, int16."""
    time = np.arange(4 * RATE) / RATE
    pulses = (np.diff(np.floor((110 + 20 * np.sin(3 * time)) * time), prepend=0) > 0).astype(float)
    voice = pulses
    for resonance, width in ((700, 80), (1220, 90), (2600, 120)):
        taps = np.arange(800) / RATE
        voice = np.convolve(voice, np.exp(-np.pi * width * taps) * np.sin(2 * np.pi * resonance * taps))[: len(time)]
    return (voice / np.abs(voice).max() * (time % 1 > 0.5) * 16_000).astype(np.int16)


def lines(speech: Array, width: int = 60) -> Iterator[str]:
    """Yield a line for every 96 ms: the time, and the probability of speech as a bar."""
    for number in range(0, len(speech), 3):
        chance = float(speech[number : number + 3].max())
        yield f"{number * HOP / RATE:6.2f} s  {chance:4.2f}  {'#' * round(chance * width)}"


def draw(path: Path, samples: Array, speech: Array) -> None:
    from matplotlib import pyplot

    figure, (above, below) = pyplot.subplots(2, sharex=True, figsize=(10, 4))
    above.plot(np.arange(len(samples)) / RATE, samples * SCALE, linewidth=0.3)
    below.step((np.arange(len(speech)) + 1) * HOP / RATE, speech, where="pre")
    below.set(xlabel="s", ylabel="probability of speech", ylim=(0, 1))
    figure.savefig(path)


def main(options: argparse.Namespace) -> None:
    samples = read_wav(options.wav) if options.wav else buzzes()
    steps = samples[: len(samples) // HOP * HOP].reshape(-1, HOP)
    with Client(options.url) as client, client.open(options.model).stream(scale=SCALE) as stream:
        speech = np.concatenate([stepped.outputs for stepped in stream.map(steps[:, np.newaxis])])
    print(*lines(speech), sep="\n")
    alone = run_alone("silero", options.graph, steps * np.float32(SCALE))
    print("equal to its own loop, to the bit:", speech.tobytes() == alone.tobytes())
    if options.png:
        draw(options.png, samples, speech)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description="Stream a WAV file through Silero VAD and draw the probability of speech."
    )
    parser.add_argument("graph", type=Path, help="the original ONNX file, for its own loop")
    parser.add_argument("wav", type=Path, nargs="?", help="16,000 samples per second, one channel, 16 bits")
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="of the server")
    parser.add_argument("--model", default="silero", help="its name there")
    parser.add_argument("--png", type=Path, metavar="FILE", help="also draw it there, by matplotlib")
    main(parser.parse_args())
