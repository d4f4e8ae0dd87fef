"""Train a DNC from Python on a small copy task, watch it learn, and export it for the server.

pip install -c constraints.txt -e '.[train]'
python examples/train_a_model.py runs/small-dnc
scripts/serve --checkpoints runs
"""

import shlex
import sys
from pathlib import Path

from training.checkpoint import save_checkpoint
from training.evaluation import evaluate
from training.export import export
from training.preset import preset_from_values
from training.table import HEAD, line
from training.trainer import Trainer, Update

PRESET = {
    "name": "small-dnc",
    "task": {"name": "copy", "bits": 4, "length": [1, 8]},
    "model": {
        "kind": "dnc",
        "memory_size": 16,
        "word_size": 8,
        "controller": {"kind": "lstm", "hidden_size": 48},
    },
    "training": {"updates": 1500, "mixed_lengths": True, "seed": 2},
    "optimizer": {"learning_rate": 1e-2},
    "curriculum": [{"length": [1, 4], "until": 0.2}],
    "evaluation": [{"length": 4}, {"length": 8, "target": 0.5}, {"length": 16, "memory_size": 32}],
}


def main(directory: Path, updates: int) -> None:
    preset = preset_from_values(PRESET).with_training(updates=updates)
    trainer = Trainer(preset)
    example = preset.task.with_options({"length": 8}).sample(trainer.generator, 1)
    print(preset.task.render(example))

    def report(update: Update) -> bool:
        progress = trainer.progress
        if progress.update % 100 == 0:
            where = f"update {progress.update:5d}  lesson {progress.stage + 1}"
            print(f"{where}  loss {update.loss:.4f}  wrong bits {progress.validation_errors:.2f}")
        return True

    trainer.run(report)
    save_checkpoint(directory, trainer, shlex.join(["python", "examples/train_a_model.py", str(directory)]))
    print(HEAD)
    for row in evaluate(trainer.model, preset.task, preset.evaluation, sequences=100):
        print(line(row))
    print("exported:", export(directory))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1500)
