"""Train a DNC from Python on a small copy task, watch it learn, and export it for the server.

pip install -c constraints.txt -e '.[train]'
python examples/train_a_model.py runs/small-dnc
scripts/serve --checkpoints runs
"""

import sys
from pathlib import Path

from training.checkpoint import save_checkpoint
from training.config import preset_from_values
from training.evaluation import evaluate
from training.export import export
from training.trainer import Trainer, Update

PRESET = {
    "name": "small-dnc",
    "task": {"name": "copy", "bits": 4, "max_length": 8},
    "model": {
        "kind": "dnc",
        "memory_size": 16,
        "word_size": 8,
        "controller": {"kind": "lstm", "hidden_size": 48},
        "output_activation": "sigmoid",
    },
    "training": {"updates": 1500, "learning_rate": 5e-3, "seed": 2},
}


def main(directory: Path, updates: int) -> None:
    trainer = Trainer(preset_from_values(PRESET).with_training(updates=updates))
    print(trainer.preset.task.render(trainer.preset.task.sample(trainer.generator, 1, length=8)))

    def report(update: Update) -> bool:
        done = trainer.progress.update
        if done % 100 == 0:
            print(f"update {done:5d}  loss {update.loss:.4f}  wrong bits {trainer.progress.validation_errors:.2f}")
        return True

    trainer.run(report)
    save_checkpoint(directory, trainer, f"python examples/train_a_model.py {directory}")
    for row in evaluate(trainer.model, trainer.preset.task, lengths=[4, 8, 16], sequences=100):
        print(f"length {row.length:2d}: {row.errors_per_sequence:.2f} wrong bits of {row.bits_per_sequence}")
    print("exported:", export(directory))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1500)
