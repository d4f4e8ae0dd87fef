"""Helpers of tests of triple tasks: an episode decoded from its layout alone."""

from typing import NamedTuple


class Told(NamedTuple):
    """One question of a sequence: the triples of the query, the steps of silence after it, and those of the answer."""

    query: list
    planning: int
    answer: list


def triple(channels, digits=3):
    """Return the triple of a list of channels: three numbers, None for a blank one."""
    return tuple(label(channels[10 * digits * place : 10 * digits * (place + 1)]) for place in range(3))


def label(channels):
    places = [channels[start : start + 10] for start in range(0, len(channels), 10)]
    if not any(channels):
        return None
    assert all(sum(place) == 1 for place in places), "every digit of a label is one-hot"
    return int("".join(str(place.index(1)) for place in places))


def read(episode, row=0, digits=3):
    """Return the description of a sequence, a list of triples, and its questions."""
    end, size = int(episode.lengths[row]), 30 * digits
    inputs, targets = episode.inputs[:end, row].tolist(), episode.targets[:end, row].tolist()
    begins = [step for step in range(end) if inputs[step][size]]
    phases = [range(start, after) for start, after in zip([0, *begins], [*begins, end], strict=True)]
    description, *others = [[triple(inputs[step], digits) for step in phase] for phase in phases]
    questions = []
    for phase, shown in zip(phases[1:], others, strict=True):
        if any(label is not None for label in shown[0]):
            questions.append(Told(shown, 0, []))
        elif not inputs[phase[0]][size + 1]:
            questions[-1] = questions[-1]._replace(planning=len(phase))
        else:
            assert all(inputs[step][size + 1] for step in phase)
            questions[-1] = questions[-1]._replace(answer=[triple(targets[step], digits) for step in phase])
    return description, questions


def sequences(task, draw, count=30):
    """Return `count` decoded sequences."""
    episode = task.sample(draw, count)
    return [read(episode, row, task.label_digits) for row in range(count)]
