"""The training loop: it learns, it stops, it skips what is not finite, and it goes on exactly where it was left."""

import dataclasses
import math

import pytest
import torch
from torch.testing import assert_close

from models.contract import unroll
from models.kernels.coverage import NoKernel
from tests.training import tiny
from training import trainer as trainer_module
from training.checkpoint import resume, save_checkpoint
from training.tasks import Copy
from training.trainer import Progress, Trainer


def run(trainer, updates):
    """Train for at most so many updates, and return what each of them did."""
    done = []
    trainer.run(lambda update: done.append(update) or len(done) < updates)
    return done


def assert_same_run(first, second):
    assert first.progress == second.progress
    expected, actual = first.tensors(), second.tensors()
    assert actual.keys() == expected.keys()
    for name in expected:
        assert torch.equal(actual[name], expected[name]), name


@pytest.mark.parametrize("model", ["dnc", "ntm", "ntm-feed-forward-shift-5", "rnn"])
def test_loss_falls_from_chance_to_less_than_half_of_it(model):
    trainer = Trainer(tiny.preset(model, updates=250, learning_rate=3e-2, batch_size=16, validate_every=250))
    losses = [update.loss for update in run(trainer, 250)]
    assert losses[0] == pytest.approx(math.log(2), abs=0.1)
    assert sum(losses[-20:]) / 20 < math.log(2) / 2


def test_first_update_reports_the_loss_and_errors_of_the_fresh_weights():
    trainer = Trainer(tiny.preset("dnc"))
    fresh = Trainer(trainer.preset)
    update = trainer.update()
    episode = trainer.preset.task.sample(fresh.generator, 4)
    outputs, _, _ = unroll(fresh.model, episode.inputs, fresh.model.initial_state(4))
    assert_close(update.loss, trainer.preset.task.loss(outputs, episode).item())
    assert update.errors == trainer.preset.task.errors(outputs, episode).float().mean().item()
    assert update.skipped is False


@pytest.mark.parametrize("model", ["dnc", "ntm", "rnn"])
def test_run_by_the_kernels_is_the_run_by_torch_up_to_rounding(model):
    preset = tiny.preset(model, updates=60, validate_every=20, validation_sequences=8)
    fused, torch_ = Trainer(preset, path="fused"), Trainer(preset, path="torch")
    assert (fused.unroll.path, torch_.unroll.path) == ("fused", "torch")
    for ours, theirs in zip(run(fused, 60), run(torch_, 60), strict=True):
        assert ours.loss == pytest.approx(theirs.loss, rel=1e-4)
    assert fused.progress.validation_errors == pytest.approx(torch_.progress.validation_errors, abs=1)


def test_kernels_are_taken_where_they_can_train_the_model():
    assert Trainer(tiny.preset("dnc")).unroll.path == "fused"
    preset = tiny.preset("dnc")
    dropping = dataclasses.replace(preset, model=dataclasses.replace(preset.model, bypass_dropout=0.1))
    assert Trainer(dropping).unroll.path == "torch"
    with pytest.raises(NoKernel, match="its bypass_dropout is"):
        Trainer(dropping, path="fused")


def test_updates_follow_the_schedule_of_the_learning_rate():
    trainer = Trainer(tiny.preset(updates=3, learning_rate=0.1, final_rate=0.5))
    rates = []
    trainer.run(lambda _: rates.append(trainer.optimizer.param_groups[0]["lr"]) or True)
    assert rates == pytest.approx([0.1, 0.075, 0.05])


def test_gradient_is_clipped_to_the_norm_asked_for(monkeypatch):
    stepped = []
    trainer = Trainer(tiny.preset(clip_norm=1e-3))
    monkeypatch.setattr(
        trainer.optimizer,
        "step",
        lambda: stepped.append(torch.cat([p.grad.flatten() for p in trainer.model.parameters()]).norm().item()),
    )
    run(trainer, 3)
    assert stepped == pytest.approx([1e-3] * 3, rel=1e-2)


def test_gradients_do_not_add_up_over_updates(monkeypatch):
    trainer = Trainer(tiny.preset(learning_rate=0, clip_norm=100.0))
    episode = trainer.preset.task.sample(torch.Generator().manual_seed(0), 4)
    monkeypatch.setattr(Copy, "sample", lambda *_: episode)
    trainer.update()
    first = [parameter.grad.clone() for parameter in trainer.model.parameters()]
    trainer.update()
    assert_close([parameter.grad for parameter in trainer.model.parameters()], first)


def test_progress_counts_updates_and_sequences():
    trainer = Trainer(tiny.preset())
    run(trainer, 7)
    assert trainer.progress == Progress(update=7, sequences=28)


def test_run_ends_at_the_last_update():
    trainer = Trainer(tiny.preset(updates=12))
    assert len(run(trainer, 1000)) == 12
    assert trainer.finished
    assert not trainer.reached_target
    assert run(trainer, 1000) == []


def test_run_stops_where_its_caller_says():
    trainer = Trainer(tiny.preset())
    assert len(run(trainer, 5)) == 5
    assert not trainer.finished


def test_run_stops_early_after_enough_validations_at_the_target():
    trainer = Trainer(tiny.preset(target_errors=1e9, patience=2, validate_every=5))
    assert len(run(trainer, 1000)) == 10
    assert trainer.reached_target
    assert trainer.finished


def test_validation_that_misses_the_target_starts_the_count_over(monkeypatch):
    answers = iter([0.0, 0.3, 0.2, 0.3, 0.1, 0.25, 0.0, 0.0])
    monkeypatch.setattr(trainer_module, "bit_errors", lambda *_, **__: torch.tensor([next(answers)] * 2))
    trainer = Trainer(tiny.preset(target_errors=0.25, patience=3, validate_every=1))
    counts = []
    trainer.run(lambda _: counts.append(trainer.progress.validations_at_target) or True)
    assert counts == [1, 0, 1, 0, 1, 2, 3]
    assert trainer.progress.validation_errors == 0.0


def test_validation_asks_for_the_longest_length_on_sequences_of_its_own(monkeypatch):
    asked = []
    monkeypatch.setattr(trainer_module, "bit_errors", lambda *given, **_: asked.append(given) or torch.ones(8))
    trainer = Trainer(tiny.preset(validate_every=2))
    run(trainer, 5)
    assert asked == [(trainer.model, trainer.preset.task, 3, 8, trainer_module.VALIDATION_SEED)] * 2
    assert trainer.progress.validation_errors == 1.0


def test_validation_leaves_no_trace_in_the_training():
    never, often = Trainer(tiny.preset("dnc", validate_every=1000)), Trainer(tiny.preset("dnc", validate_every=1))
    run(never, 6)
    run(often, 6)
    for expected, actual in zip(never.model.parameters(), often.model.parameters(), strict=True):
        assert torch.equal(actual, expected)


def test_gradient_that_is_not_finite_is_skipped_and_counted():
    trainer = Trainer(tiny.preset("dnc"))
    run(trainer, 3)
    before = {name: tensor.clone() for name, tensor in trainer.tensors().items() if name != "generator.data"}
    hook = trainer.model.output.bias.register_hook(lambda gradient: gradient * math.nan)
    update = trainer.update()
    hook.remove()

    assert update.skipped
    assert (trainer.progress.update, trainer.progress.skipped) == (4, 1)
    after = trainer.tensors()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_update_after_a_skipped_one_goes_on():
    trainer = Trainer(tiny.preset())
    hook = trainer.model.output.bias.register_hook(lambda gradient: gradient * math.inf)
    trainer.update()
    hook.remove()
    before = trainer.model.output.bias.clone()
    assert not trainer.update().skipped
    assert trainer.progress.skipped == 1
    assert trainer.model.output.bias.ne(before).all()
    assert trainer.model.output.bias.isfinite().all()


def test_same_seed_trains_the_same_weights_and_another_seed_others():
    first, again, other = (Trainer(tiny.preset(seed=seed)) for seed in (3, 3, 4))
    for trainer in (first, again, other):
        run(trainer, 5)
    assert_same_run(first, again)
    assert not torch.equal(first.model.output.weight, other.model.output.weight)
    assert not torch.equal(first.generator.get_state(), other.generator.get_state())


@pytest.mark.parametrize("model", list(tiny.MODELS))
def test_run_interrupted_and_resumed_equals_the_uninterrupted_run_to_the_bit(tmp_path, model):
    whole = Trainer(tiny.preset(model, updates=16, validate_every=4))
    run(whole, 16)

    parts = Trainer(whole.preset)
    for updates in (1, 6, 9):
        run(parts, updates)
        save_checkpoint(tmp_path, parts, "engram train")
        parts = resume(tmp_path)
    assert_same_run(parts, whole)


def test_resumed_trainer_is_the_one_that_was_saved(tmp_path):
    saved = Trainer(tiny.preset("dnc"))
    run(saved, 11)
    torch.rand(5)
    random_state = torch.get_rng_state()
    save_checkpoint(tmp_path, saved, "engram train")
    torch.manual_seed(99)
    resumed = resume(tmp_path)
    assert resumed.preset == saved.preset
    assert torch.equal(torch.get_rng_state(), random_state)
    assert_same_run(saved, resumed)


def test_run_resumed_before_its_first_validation_knows_of_none(tmp_path):
    tiny.checkpoint(tmp_path, updates=2)
    assert resume(tmp_path).progress == Progress(update=2, sequences=8, validation_errors=math.inf)
