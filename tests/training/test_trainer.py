"""The training loop: it learns, lesson by lesson; it stops, skips updates that are not finite, and resumes."""

import dataclasses
import itertools
import math

import pytest
import torch
from torch.testing import assert_close

from kernels.support import NoKernel
from models.config import ConfigError
from models.contract import unroll
from tests.training import tiny
from training import trainer as trainer_module
from training.checkpoint import resume, save_checkpoint
from training.evaluation import Measured
from training.preset import RECENT
from training.tasks import Copy
from training.trainer import VALIDATION_SEED, NotFinite, Progress, Trainer

ON_CUDA = [pytest.param("cuda", marks=pytest.mark.cuda)] if torch.cuda.is_available() else []


def run(trainer, updates, after=lambda: None):
    """Train for at most `updates` updates, with a call after each, and return their figures."""
    done = []
    trainer.run(lambda update: done.append(update) or after() or len(done) < updates)
    return done


def assert_same_run(first, second):
    assert first.progress == second.progress
    expected, actual = first.tensors(), second.tensors()
    assert actual.keys() == expected.keys()
    for name in expected:
        assert torch.equal(actual[name], expected[name]), name


def measured(errors):
    return Measured(sequences=8, errors=errors, cost=None, asked=6.0, wrong_sequences=0, optimum=None)


def poison(weight, value=math.nan):
    """Make one entry of a weight another."""
    with torch.no_grad():
        weight.view(-1)[0] = value


@pytest.mark.parametrize("model", ["dnc", "ntm", "ntm-feed-forward-shift-5", "rnn"])
def test_loss_falls_from_chance_to_less_than_half_of_it(model):
    trainer = Trainer(tiny.preset(model, updates=250, learning_rate=3e-2, batch_size=16, validate_every=250))
    losses = [update.loss for update in run(trainer, 250)]
    assert losses[0] == pytest.approx(math.log(2), abs=0.1)
    assert sum(losses[-20:]) / 20 < math.log(2) / 2


def test_first_update_reports_errors_of_the_fresh_weights():
    trainer = Trainer(tiny.preset("dnc"))
    fresh = Trainer(trainer.preset)
    update = trainer.update()
    episode = trainer.preset.task.sample(fresh.generator, 4)
    outputs, _, _ = unroll(fresh.model, episode.inputs, fresh.model.initial_state(4))
    assert_close(update.loss, trainer.preset.task.loss(outputs, episode).item())
    assert update.errors == trainer.preset.task.errors(outputs, episode).float().mean().item()
    assert update.skipped is None
    assert (update.rate, fresh.progress.update) == (1e-2, 0)


@pytest.mark.parametrize("model", ["dnc", "ntm", "rnn"])
def test_run_by_the_kernels_equals_torch_up_to_rounding(model):
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


@pytest.mark.parametrize(
    ("path", "rate"),
    [
        ("torch", lambda trainer: trainer.updates.optimizer.param_groups[0]["lr"]),
        ("fused", lambda trainer: trainer.updates.fused.optimizer.rate),
    ],
)
def test_updates_follow_the_schedule_of_the_learning_rate(path, rate):
    trainer, taken = Trainer(tiny.preset(updates=3, learning_rate=0.1, final_rate=0.5), path=path), []
    assert [update.rate for update in run(trainer, 3, lambda: taken.append(rate(trainer)))] == taken
    assert taken == pytest.approx([0.1, 0.075, 0.05])


def test_gradient_is_clipped_to_the_norm_asked_for(monkeypatch):
    stepped = []
    trainer = Trainer(tiny.preset(clip_norm=1e-3), path="torch")
    monkeypatch.setattr(
        trainer.updates.optimizer,
        "step",
        lambda: stepped.append(torch.cat([p.grad.flatten() for p in trainer.model.parameters()]).norm().item()),
    )
    run(trainer, 3)
    assert stepped == pytest.approx([1e-3] * 3, rel=1e-2)


@pytest.mark.parametrize("path", ["fused", "torch"])
def test_gradients_do_not_add_up_over_updates(monkeypatch, path):
    trainer = Trainer(tiny.preset(learning_rate=0, clip_norm=100.0), path=path)
    episode = trainer.preset.task.sample(torch.Generator().manual_seed(0), 4)
    monkeypatch.setattr(Copy, "sample", lambda *_: episode)
    trainer.update()
    first = {name: gradient.clone() for name, gradient in trainer.updates.gradients().items()}
    trainer.update()
    assert_close(trainer.updates.gradients(), first)


@pytest.mark.parametrize("path", ["fused", "torch"])
def test_model_and_unroll_have_the_weights_of_the_last_update(path):
    asked, held = (Trainer(tiny.preset(updates=3, validate_every=100), path=path) for _ in range(2))
    model, inputs = held.model, torch.ones(2, 1, held.model.input_size)
    outputs = [asked.unroll(inputs)[0]]
    run(asked, 3, lambda: outputs.append(asked.unroll(inputs)[0]))
    assert all(not torch.equal(before, after) for before, after in itertools.pairwise(outputs))
    run(held, 3)
    assert_close(list(model.parameters()), list(asked.model.parameters()), rtol=0, atol=0)


def test_progress_counts_updates_and_keeps_recent_figures():
    trainer = Trainer(tiny.preset(updates=100, validate_every=100))
    updates = run(trainer, RECENT + 7)
    recent = {"recent_losses": [u.loss for u in updates[7:]], "recent_errors": [u.errors for u in updates[7:]]}
    assert trainer.progress == Progress(update=RECENT + 7, sequences=4 * (RECENT + 7), **recent)


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
    monkeypatch.setattr(trainer_module, "measure", lambda *_, **__: measured(next(answers)))
    trainer = Trainer(tiny.preset(target_errors=0.25, patience=3, validate_every=1))
    counts = []
    trainer.run(lambda _: counts.append(trainer.progress.validations_at_target) or True)
    assert counts == [1, 0, 1, 0, 1, 2, 3]
    assert trainer.progress.validation_errors == 0.0


def test_run_converges_at_its_first_validation_at_the_target(monkeypatch):
    answers = iter([0.5, 0.2, 0.5, 0.1, 0.1])
    monkeypatch.setattr(trainer_module, "measure", lambda *_, **__: measured(next(answers)))
    trainer = Trainer(tiny.preset(updates=10, target_errors=0.25, patience=0, validate_every=2))
    seen = []
    trainer.run(lambda _: seen.append(trainer.progress.converged_after) or True)
    assert seen == [None] * 3 + [16] * 7
    assert not trainer.reached_target


def test_unavoidable_errors_do_not_count_against_the_target(monkeypatch):
    unavoidable = dataclasses.replace(measured(64.2), optimum=64.0)
    monkeypatch.setattr(trainer_module, "measure", lambda *_, **__: unavoidable)
    trainer = Trainer(tiny.preset(target_errors=0.25, patience=1, validate_every=1))
    assert len(run(trainer, 10)) == 1
    assert trainer.progress.validation_errors == pytest.approx(0.2)


def test_validation_has_the_greatest_sizes_on_own_sequences(monkeypatch):
    asked = []
    monkeypatch.setattr(trainer_module, "measure", lambda *given, **_: asked.append(given) or measured(1.0))
    trainer = Trainer(tiny.preset(validate_every=2, curriculum=[{"length": 1, "until": 1e-9}]))
    run(trainer, 5)
    assert asked == [(trainer.model, Copy(bits=2, length=(3, 3)), 8, VALIDATION_SEED)] * 2
    assert trainer.progress.validation_errors == 1.0


def test_validation_leaves_no_trace_in_the_training():
    never, often = Trainer(tiny.preset("dnc", validate_every=1000)), Trainer(tiny.preset("dnc", validate_every=1))
    run(never, 6)
    run(often, 6)
    for expected, actual in zip(never.model.parameters(), often.model.parameters(), strict=True):
        assert torch.equal(actual, expected)


# Numbers that are not finite


@pytest.mark.parametrize("path", ["fused", "torch"])
def test_gradient_that_is_not_finite_is_skipped_counted_and_named(path):
    trainer = Trainer(tiny.preset("dnc"), path=path)
    run(trainer, 3)
    before = {name: tensor.clone() for name, tensor in trainer.tensors().items() if name != "generator.data"}
    with tiny.spoiled_gradient(trainer, math.nan):
        update = trainer.update()

    assert update.skipped == "the gradient of output.bias"
    assert math.isfinite(update.loss)
    assert (trainer.progress.update, trainer.progress.skipped, trainer.progress.not_finite) == (4, 1, 1)
    assert len(trainer.progress.recent_losses) == 3
    after = trainer.tensors()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_update_after_a_skipped_one_ends_the_row():
    trainer = Trainer(tiny.preset())
    with tiny.spoiled_gradient(trainer, math.inf):
        trainer.update()
    before = trainer.model.output.bias.clone()
    assert not trainer.update().skipped
    assert (trainer.progress.skipped, trainer.progress.not_finite) == (1, 0)
    assert trainer.model.output.bias.ne(before).all()
    assert trainer.model.output.bias.isfinite().all()


@pytest.mark.parametrize("path", ["fused", "torch"])
@pytest.mark.parametrize("clip_value", [0.0, 1.0])
def test_nonfinite_gradient_is_seen_whatever_it_would_be_clipped_to(clip_value, path):
    trainer = Trainer(tiny.preset(clip_value=clip_value), path=path)
    with tiny.spoiled_gradient(trainer, math.inf):
        assert trainer.update().skipped == "the gradient of output.bias"


def test_skipped_updates_beyond_their_limit_end_the_run():
    trainer = Trainer(tiny.preset(skips=2, seed=7))
    run(trainer, 3)
    named = r"update 6, seed 7: the gradient of output\.bias is not finite .*for 3 updates"
    with tiny.spoiled_gradient(trainer, math.nan):
        assert [trainer.update().skipped is not None for _ in range(2)] == [True, True]
        with pytest.raises(NotFinite, match=named):
            trainer.update()


def test_run_without_skips_ends_at_the_first_nonfinite_gradient():
    trainer = Trainer(tiny.preset(skips=0))
    advised = r"update 1, seed 1: .*; lower optimizer\.learning_rate or optimizer\.clip_norm"
    with tiny.spoiled_gradient(trainer, math.nan), pytest.raises(NotFinite, match=advised):
        trainer.update()


@pytest.mark.parametrize("path", ["fused", "torch"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize(
    ("model", "name"), [("dnc", "interface.weight"), ("ntm", "output.weight"), ("rnn", "output.bias")]
)
def test_nonfinite_weight_is_named_with_update_and_seed(path, bad, model, name):
    trainer = Trainer(tiny.preset(model, skips=1, seed=3), path=path)
    run(trainer, 2)
    poison(trainer.model.get_parameter(name), bad)
    assert trainer.update().skipped == name
    with pytest.raises(NotFinite, match=f"update 4, seed 3: {name} is not finite .*for 2 updates in a row"):
        trainer.update()


def test_skipped_update_leaves_losses_and_lesson_unchanged():
    trainer = Trainer(tiny.preset(updates=200, skips=100, curriculum=[{"length": 1, "until": 1e9}]))
    run(trainer, RECENT - 1)
    with tiny.spoiled_gradient(trainer, math.nan):
        run(trainer, 10)
    assert (trainer.progress.stage, len(trainer.progress.recent_losses)) == (0, RECENT - 1)
    trainer.update()
    assert trainer.progress.stage == 1


def silence(monkeypatch, batches):
    """Make the copy task ask for nothing in batches of these numbers, counted from 0."""
    sample, drawn = Copy.sample, iter(range(10**6))

    def sampled(task, generator, batch_size):
        episode = sample(task, generator, batch_size)
        return episode._replace(mask=0 * episode.mask) if next(drawn) in batches else episode

    monkeypatch.setattr(Copy, "sample", sampled)


@pytest.mark.parametrize("path", ["fused", "torch"])
def test_batch_without_answers_does_not_count_for_the_lesson(monkeypatch, path):
    silence(monkeypatch, range(1, 1000))
    trainer = Trainer(
        tiny.preset("dnc", updates=200, validate_every=1000, curriculum=[{"length": 1, "until": 0.5}]), path=path
    )
    first, *silent = run(trainer, RECENT + 5)
    assert {(update.loss, update.errors, update.gradient_norm, update.skipped) for update in silent} == {
        (0, 0, 0, None)
    }
    assert trainer.progress.recent_losses == [first.loss]
    assert trainer.progress.stage == 0


def test_task_without_answers_is_refused_before_the_first_update(monkeypatch):
    silence(monkeypatch, range(7))
    trainer = Trainer(tiny.preset(validation_sequences=8))
    trainer.check_tasks()
    silence(monkeypatch, range(1000))
    with pytest.raises(ConfigError, match=r"the task copy asks for nothing in 8 sequences, .*its mask must be 1 where"):
        trainer.check_tasks()


def test_weights_are_checked_by_name():
    trainer = Trainer(tiny.preset("ntm"))
    trainer.check_weights()
    poison(trainer.model.output.bias)
    with pytest.raises(NotFinite, match=r"update 0, seed 1: output\.bias is not finite"):
        trainer.check_weights()


# Lessons


def losses_to_come(monkeypatch, losses):
    """Make the copy task return these losses, one after the other."""
    due = iter(losses)
    monkeypatch.setattr(Copy, "loss", lambda self, outputs, episode: outputs.sum() * 0 + next(due))


@pytest.mark.parametrize(
    "losses",
    [
        [1.0] * RECENT + [0.0] * RECENT,
        [0.4] * 3 * RECENT,
        [0.5] * 3 * RECENT,
        [0.0] * (RECENT - 1) + [26.0] + [0.3] * 2 * RECENT,
    ],
    ids=["falling", "below from the start", "never below", "one great loss"],
)
def test_lesson_ends_exactly_when_recent_losses_are_below(monkeypatch, losses):
    losses_to_come(monkeypatch, losses)
    trainer = Trainer(tiny.preset(updates=len(losses), curriculum=[{"length": 1, "until": 0.5}], validate_every=1000))
    stages = []
    trainer.run(lambda _: stages.append(trainer.progress.stage) or True)
    means = [sum(losses[end - RECENT : end]) / RECENT if end >= RECENT else 1.0 for end in range(1, len(losses) + 1)]
    first = next((index for index, mean in enumerate(means) if mean < 0.5), len(losses))
    assert stages == [0] * first + [1] * (len(losses) - first)


def test_each_lesson_goes_by_losses_of_its_own(monkeypatch):
    losses_to_come(monkeypatch, [0.1] * 200)
    lessons = [{"length": length, "until": 0.2} for length in (1, 2)]
    trainer = Trainer(tiny.preset(updates=200, curriculum=lessons, validate_every=1000))
    lengths = []
    trainer.run(lambda _: lengths.append(trainer.task.length) or True)
    assert lengths == [(1, 1)] * (RECENT - 1) + [(2, 2)] * RECENT + [(1, 3)] * (201 - 2 * RECENT)
    assert len(trainer.progress.recent_losses) == RECENT


def test_lesson_trains_on_its_own_sizes(monkeypatch):
    drawn, sample = [], Copy.sample
    monkeypatch.setattr(Copy, "sample", lambda task, *given: drawn.append(task.length) or sample(task, *given))
    trainer = Trainer(tiny.preset(curriculum=[{"length": 1, "until": 1e-9}], validate_every=1000))
    run(trainer, 3)
    assert drawn == [(1, 1)] * 3
    trainer.progress.stage = 1
    run(trainer, 2)
    assert drawn[3:] == [(1, 3)] * 2


@pytest.mark.parametrize("kind", ["adam", "rmsprop"])
def test_run_interrupted_in_lessons_equals_the_uninterrupted_bitwise(tmp_path, kind):
    lessons = [{"length": 1, "until": 10}, {"length": 2, "until": 10}]
    whole = Trainer(tiny.preset(updates=130, curriculum=lessons, kind=kind, mixed_lengths=True))
    run(whole, 130)
    parts, stages = Trainer(whole.preset), []
    for updates in (30, 40, 40, 20):
        run(parts, updates)
        save_checkpoint(tmp_path, parts, "engram train")
        parts = resume(tmp_path)
        stages.append(parts.progress.stage)
    assert stages == [0, 1, 2, 2]
    assert_same_run(parts, whole)


# Sequences of different lengths


@pytest.mark.parametrize("path", ["fused", "torch"])
@pytest.mark.parametrize("model", ["dnc", "ntm", "rnn"])
def test_batch_of_mixed_lengths_is_its_sequences_one_by_one(model, path):
    preset = tiny.preset(model, mixed_lengths=True, task={"length": [1, 6]}, batch_size=5, clip_norm=0.0)
    trainer, alone = Trainer(preset, path=path), Trainer(preset, path="torch")
    update = trainer.update()
    episodes = [alone.task.sample(alone.generator, 1) for _ in range(5)]
    assert len({len(episode.mask) for episode in episodes}) > 2
    asked = sum(episode.mask.sum() for episode in episodes)
    loss = errors = 0.0
    for episode in episodes:
        outputs, _, _ = unroll(alone.model, episode.inputs, alone.model.initial_state(1))
        loss = loss + alone.task.loss(outputs, episode) * episode.mask.sum() / asked
        errors += alone.task.errors(outputs, episode).item() / 5
    loss.backward()
    assert (update.loss, update.errors) == (pytest.approx(loss.item(), rel=1e-5), pytest.approx(errors))
    gradients = trainer.updates.gradients()
    assert gradients.keys() == dict(alone.model.named_parameters()).keys()
    for name, theirs in alone.model.named_parameters():
        assert_close(gradients[name], theirs.grad, rtol=1e-3, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("path", ["fused", "torch"])
@pytest.mark.parametrize("model", ["dnc", "ntm", "rnn"])
def test_padding_beyond_a_sequence_changes_nothing(monkeypatch, model, path):
    preset = tiny.preset(model, mixed_lengths=True, task={"length": [1, 6]})
    clean, filled = Trainer(preset, path=path), Trainer(preset, path=path)
    first = clean.update()
    join = trainer_module.join

    def join_filled(episodes):
        episode = join(episodes)
        beyond = torch.arange(len(episode.mask))[:, None] >= episode.lengths
        assert beyond.any()
        return episode._replace(inputs=torch.where(beyond[:, :, None], 5.0, episode.inputs))

    monkeypatch.setattr(trainer_module, "join", join_filled)
    assert filled.update() == first
    for ours, theirs in zip(filled.model.parameters(), clean.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_batch_has_one_length_unless_mixed_are_asked_for(monkeypatch):
    shapes, loss = [], Copy.loss
    monkeypatch.setattr(Copy, "loss", lambda task, outputs, e: shapes.append(e.lengths) or loss(task, outputs, e))
    run(Trainer(tiny.preset(validate_every=1000)), 2)
    run(Trainer(tiny.preset(validate_every=1000, mixed_lengths=True)), 2)
    assert shapes[:2] == [None, None]
    assert [len(lengths) for lengths in shapes[2:]] == [4, 4]


# Reproducibility


def test_same_seed_trains_the_same_weights_and_another_seed_others():
    first, again, other = (Trainer(tiny.preset(seed=seed)) for seed in (3, 3, 4))
    for trainer in (first, again, other):
        run(trainer, 5)
    assert_same_run(first, again)
    assert not torch.equal(first.model.output.weight, other.model.output.weight)
    assert not torch.equal(first.generator.get_state(), other.generator.get_state())


@pytest.mark.parametrize("device", ["cpu", *ON_CUDA])
@pytest.mark.parametrize("model", list(tiny.MODELS))
def test_run_interrupted_and_resumed_equals_the_uninterrupted_bitwise(tmp_path, model, device):
    whole = Trainer(tiny.preset(model, updates=16, validate_every=4), device)
    run(whole, 16)

    parts = Trainer(whole.preset, device)
    for updates in (1, 6, 9):
        run(parts, updates)
        save_checkpoint(tmp_path, parts, "engram train")
        parts = resume(tmp_path, device)
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
    saved = tiny.checkpoint(tmp_path, updates=2).progress
    assert resume(tmp_path).progress == saved
    assert (saved.update, saved.sequences, saved.validation_errors) == (2, 8, math.inf)
