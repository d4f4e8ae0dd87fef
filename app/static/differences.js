// Where two runs of a model over the same steps differ.

/** Differences up to this one are of no account. */
export const LEAST = 0.01;

const WRITTEN = ["write_weights", "write_vectors", "add_vectors"];
const READ = ["read_weights", "read_vectors"];

/** Return the steps at which two runs differ: in what is heard or written, in what is said or read, and in what is said. */
export function differingSteps(a, b) {
  const steps = Array.from({ length: Math.min(a.done, b.done) }, (_, step) => step);
  const traced = (names) => (step) => names.some((name) => areApart(a.trace[name]?.[step], b.trace[name]?.[step], heads(a, name)));
  const [isWritten, isRead] = [traced(WRITTEN), traced(READ)];
  const { inputs } = a.sequence;
  return {
    written: steps.filter((step) => areApart(inputs[step], b.sequence.inputs[step]) || isWritten(step)),
    read: steps.filter((step) => isOtherwise(a, b, step) || isRead(step)),
    said: steps.filter((step) => isOtherwise(a, b, step)),
  };
}

/** Return steps in order as intervals, [{from, to}], of the steps `from` to before `to`. */
export function intervals(steps) {
  const starts = steps.filter((step, at) => step !== steps[at - 1] + 1);
  return starts.map((from) => {
    let to = from + 1;
    while (steps.includes(to)) to++;
    return { from, to };
  });
}

function isOtherwise(a, b, step) {
  return areApart(a.outputs[step], b.outputs[step]);
}

function heads({ model }, name) {
  return model.trace[name]?.[0];
}

/** Return whether values differ; where there are more on one side, a part for each head, those that both sides have. */
function areApart(one, other, heads = 1) {
  if (!one || !other) return false;
  const [size, otherSize] = [one.length / heads, other.length / heads];
  const shared = Math.min(size, otherSize);
  for (let head = 0; head < heads; head++) {
    for (let at = 0; at < shared; at++) {
      if (Math.abs(one[head * size + at] - other[head * otherSize + at]) > LEAST) return true;
    }
  }
  return false;
}
