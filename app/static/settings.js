import { element } from "./dom.js";

/** The numbers that a task lets one choose beside the pattern. */
export class Settings {
  /** `onChange` is called after every change by hand. */
  constructor(container, onChange) {
    this.container = container;
    this.onChange = onChange;
    this.fields = [];
  }

  /** Ask for the settings of `task` from now on; what was chosen stays if they have the same names. */
  setTask({ settings = [] }) {
    const chosen = this.values();
    this.fields = settings.map((setting) => {
      const input = element("input", { type: "number", id: setting.name, min: setting.least });
      input.value = chosen[setting.name] ?? setting.initial;
      input.addEventListener("input", this.onChange);
      input.addEventListener("change", () => this.clamp({ setting, input }));
      return { setting, input };
    });
    this.container.replaceChildren(
      ...this.fields.map(({ setting, input }) => element("label", {}, `${setting.label} `, input)),
    );
  }

  /** Keep what is chosen to what can be with a pattern of this length. */
  resize(length) {
    for (const field of this.fields) {
      field.input.max = field.setting.greatest(length);
      this.clamp(field);
    }
  }

  clamp({ input }) {
    input.value = Math.min(Math.max(Math.round(input.valueAsNumber) || 0, input.min), input.max);
  }

  /** Return what is chosen, by name. */
  values() {
    this.fields.forEach((field) => this.clamp(field));
    return Object.fromEntries(this.fields.map(({ setting, input }) => [setting.name, input.valueAsNumber]));
  }
}
