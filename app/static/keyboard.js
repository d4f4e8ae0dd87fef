// Keys of the whole page.

/**
 * Call what `actions` has for a key, as `event.key` names it, that nothing with the focus takes; isReady(): whether there
 * is something to move in.
 */
export function watchKeys(actions, isReady) {
  document.addEventListener("keydown", (event) => {
    const isTaken = event.target.closest("input, select, textarea, dialog, [data-keys]");
    const isPress = event.key === " " && event.target.closest("button, summary, a");
    const hasModifier = event.ctrlKey || event.metaKey || event.altKey;
    if (event.defaultPrevented || isTaken || isPress || hasModifier || !isReady() || !actions[event.key]) return;
    event.preventDefault();
    actions[event.key]();
  });
}

/** Close what was opened by Escape, or by a press elsewhere. */
export function closeElsewhere(details) {
  document.addEventListener("pointerdown", ({ target }) => details.contains(target) || (details.open = false));
  details.addEventListener("keydown", ({ key }) => {
    if (key !== "Escape") return;
    details.open = false;
    details.querySelector("summary").focus();
  });
}
