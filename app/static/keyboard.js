/**
 * Call what `actions` has for a key, as `event.key` names it, that no field of a form takes; isReady(): whether there is
 * something to move in.
 */
export function watchKeys(actions, isReady) {
  document.addEventListener("keydown", (event) => {
    const isTaken = event.target.closest("input, select, textarea, button, summary, [data-keys]");
    if (isTaken || event.ctrlKey || event.metaKey || event.altKey || !isReady() || !actions[event.key]) return;
    event.preventDefault();
    actions[event.key]();
  });
}
