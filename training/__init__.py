"""Train, evaluate and export the models: tasks, trainer, checkpoints, figures, ONNX."""
