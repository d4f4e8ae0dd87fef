// What is seen below the memory: the scene of a run or its links, and how large.

import { element } from "./dom.js";

/** Put a scene below the memory, in place of the links, with buttons to choose what is seen; then onChange is called. */
export function addScene(panel, scene, stage, onChange) {
  const below = (name) => panel.dataset.below === name;
  const buttons = { scene: scene.title, ...(panel.querySelector(".link") && { links: "Links" }) };
  const choices = Object.entries(buttons).map(([name, text]) => button(text, () => below(name), () => (panel.dataset.below = name)));
  const isLarge = () => stage.classList.contains("large-scene");
  choices.push(button("Large", isLarge, () => stage.classList.toggle("large-scene")));
  const show = () => choices.forEach((choice) => choice.show());
  const bar = element("div", { className: "choices", role: "group", ariaLabel: "Below the memory" }, ...choices.map((choice) => choice.element));
  bar.addEventListener("click", () => (show(), onChange()));
  panel.dataset.below = "scene";
  panel.append(bar, scene.element);
  show();
}

/** Return a button that is pressed or not: element, show(). */
function button(text, isPressed, press) {
  const created = element("button", { type: "button" }, text);
  created.addEventListener("click", press);
  return { element: created, show: () => (created.ariaPressed = `${isPressed()}`) };
}
