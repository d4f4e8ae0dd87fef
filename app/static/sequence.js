// What is sent to a model: a sample of the server's as it is, or what was made of it by hand (see tasks.js).

/** Return the sequence of a sample, as `task.encode` gives one, with what the task alone knows. */
export function sequenceOf({ inputs, targets, phases, labels, ...facts }, task) {
  const due = targets ?? inputs.map(() => null);
  return {
    ...facts,
    inputs,
    targets: due,
    ...(targets && { asked: due.flatMap((target, step) => (target ? [step] : [])) }),
    ...(phases.length > 0 && { phases }),
    labels: task.words ? wordsOf(inputs, task) : (labels ?? undefined),
  };
}

/** Return what one would have drawn or written for a sample. */
export function patternOf({ inputs, pattern }, task) {
  return task.words ? wordsOf(inputs, task) : (pattern ?? inputs);
}

function wordsOf(inputs, { words }) {
  return inputs.map(([token]) => words[token]);
}
