// What is open on the page: details, and what a button shows and hides. Each is known by the id of what toggles it.

const TOGGLES = "details[id]:not(.menu), button[id][aria-expanded]";

/** Return the ids of what is open. */
export function openViews() {
  return toggles().filter(isOpen).map(({ id }) => id);
}

/** Open what has these ids, and close all else. */
export function setViews(ids) {
  for (const toggle of toggles()) {
    const isWanted = ids.includes(toggle.id);
    if (isOpen(toggle) === isWanted) continue;
    if (toggle instanceof HTMLDetailsElement) toggle.open = isWanted;
    else toggle.click();
  }
}

/** Call `onToggle` whenever the user has opened or closed something. */
export function watchViews(onToggle) {
  document.addEventListener("click", ({ target }) => {
    const toggle = target.closest("summary, button[aria-expanded]");
    if (toggle?.closest(TOGGLES)) setTimeout(onToggle);
  });
}

function toggles() {
  return [...document.querySelectorAll(TOGGLES)];
}

function isOpen(toggle) {
  return toggle.open ?? toggle.ariaExpanded === "true";
}
