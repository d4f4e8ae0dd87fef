// What a model said, and whether it is right.

/**
 * Return the verdict on a run: {className, textContent, marks}.
 *
 * marks: the outputs that are wrong, [{row, column}].
 */
export function verdictOn(model, task, sequence, outputs) {
  return (model.output_activation === "softmax" ? onClasses : onBits)(model, task, sequence, outputs);
}

/** Return a function that returns the rows of the outputs that are wrong at a step; marks: as a verdict has them. */
export function wrongRows(marks) {
  const byStep = Map.groupBy(marks, ({ column }) => column);
  return (step) => (byStep.get(step) ?? []).map(({ row }) => row);
}

/** Return the classes that one step's outputs tell, one for each group of them: [{number, probability}]. */
export function classesOf(model, output) {
  const size = output.length / model.output_groups;
  return Array.from({ length: model.output_groups }, (_, group) => {
    const part = output.slice(group * size, (group + 1) * size);
    const probability = Math.max(...part);
    return { number: part.indexOf(probability), probability };
  });
}

/** Bits that fall on the other side of the threshold than those that are due are wrong. */
function onBits(model, task, sequence, outputs) {
  const { targets } = sequence;
  const asked = targets.filter(Boolean).flat().length;
  if (asked === 0) return nothingToCompare(task, sequence);
  const threshold = model.output_activation === "sigmoid" ? 0.5 : 0;
  const isWrong = (bit, column, row) => outputs[column][row] > threshold !== bit > 0.5;
  const marks = targets.flatMap((target, column) =>
    (target ?? []).flatMap((bit, row) => (isWrong(bit, column, row) ? [{ row, column }] : [])),
  );
  const bits = marks.length === 1 ? "1 wrong bit" : `${marks.length} wrong bits`;
  return { className: marks.length > 0 ? "wrong" : "right", textContent: `${bits} of ${asked}`, marks };
}

/** The answers in words, and whether they are the right ones, where that is known. */
function onClasses(model, task, sequence, outputs) {
  const { targets, asked } = sequence;
  const steps = asked ?? (model.output_at === "last-step" ? [outputs.length - 1] : []);
  if (steps.length === 0) return nothingToCompare(task, sequence);
  const answers = steps.map((step) => answerAt(model, task, step, targets[step], outputs[step]));
  const marks = answers.flatMap(({ wrong }) => wrong);
  const known = steps.some((step) => targets[step]);
  return {
    className: marks.length > 0 ? "wrong" : known ? "right" : "unknown",
    textContent: answers.map(({ text }) => text).join("; "),
    marks,
  };
}

/** Return the answer at a step as text, and its outputs that are wrong. */
function answerAt(model, task, column, target, output) {
  const classes = classesOf(model, output);
  const size = output.length / model.output_groups;
  const probability = classes.reduce((product, one) => product * one.probability, 1);
  const wrong = classes
    .map(({ number }, group) => ({ row: group * size + number, column }))
    .filter(({ row }) => target && target[row] === 0);
  const judged = target ? (wrong.length > 0 ? ", which is wrong" : ", which is right") : "";
  return { text: `${nameOf(task, classes)}, probability ${probability.toFixed(3)}${judged}`, wrong };
}

function nameOf(task, classes) {
  const names = classes.map(({ number }) => task.classes?.[number] ?? `${number}`);
  if (task.classes) return names.join(" ");
  return `${names.length > 1 ? "Classes" : "Class"} ${names.join(" ")}`;
}

function nothingToCompare(task, sequence) {
  const text = sequence.unasked ?? task.unasked ?? "No target to compare with";
  return { className: "unknown", textContent: text, marks: [] };
}
