// Work that is done once for each frame of the screen, however often it is asked for.

/** Return a function that calls `work` with what it was called with last, at the next frame; cancel() forgets that. */
export function eachFrame(work) {
  let frame;
  let last;
  const later = (...values) => {
    last = values;
    frame ??= requestAnimationFrame(() => {
      frame = undefined;
      work(...last);
    });
  };
  later.cancel = () => {
    cancelAnimationFrame(frame);
    frame = undefined;
  };
  return later;
}
