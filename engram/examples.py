"""Examples in the help of the commands, by their whole names."""

EXAMPLES = {
    "engram train": (
        "engram train dnc-copy --out runs/dnc-copy",
        "engram train dnc-copy --out runs/seeds --seeds 1 2 3 --set task.length=[1,10]",
    ),
    "engram zoo": ("engram zoo dnc-copy --seeds 1 2 --jobs 2",),
    "engram presets": ("engram presets dnc-copy",),
    "engram evaluate": ("engram evaluate checkpoints/dnc-copy --at length=50",),
    "engram plot": ("engram plot checkpoints/dnc-copy --out figures",),
    "engram card": ("engram card runs/dnc-copy",),
    "engram export": ("engram export runs/dnc-copy",),
    "engram import": ("engram import step.onnx --format onnx --guess --out checkpoints/mine",),
    "engram infer": (
        "engram infer dnc-copy < inputs.csv",
        "engram infer dnc-copy --url http://127.0.0.1:8000 --trace write_gate --input inputs.npy",
    ),
    "engram serve": ("engram serve --checkpoints checkpoints --port 8000", "engram serve --config engram.toml"),
    "engram sessions": (
        "ID=$(engram sessions open dnc-copy)",
        "engram sessions step $ID --trace write_gate < inputs.csv",
        "engram sessions fork $ID --step 3",
    ),
    "engram sessions step": ("engram sessions step $ID --format csv < inputs.csv > outputs.csv",),
    "engram sessions record": ("engram sessions record $ID --from 100 --trace usage > recording.jsonl",),
    "engram keys create": ("KEY=$(engram keys create --tenant team-a --scopes infer,sessions)",),
    "engram store copy": ("engram store copy data postgresql://engram@db.example.org/engram",),
    "engram doctor": ("engram doctor --config engram.toml",),
    "engram bench kernels": ("engram bench kernels --quick",),
    "engram isolate": ("engram isolate dnc-copy --steps 6",),
}
