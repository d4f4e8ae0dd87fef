import { element } from "./dom.js";

/** The sizes of a sample, each with what it can be. */
export class Settings {
  /** `onChange` is called with the name of a size after every change by hand. */
  constructor(container, onChange) {
    Object.assign(this, { container, onChange, fields: [] });
  }

  /** Show the sizes of a sample: [{name, label, value, trained}], with least and greatest, or with choices. */
  show(settings) {
    this.fields = settings.map((setting) => ({ setting, field: setting.choices ? choice(setting) : size(setting) }));
    for (const { setting, field } of this.fields) {
      field.addEventListener("change", () => {
        if (!setting.choices) clamp(field);
        this.onChange(setting.name);
      });
    }
    this.container.replaceChildren(
      ...this.fields.map(({ setting, field }) => element("label", { title: field.title }, `${setting.label} `, field)),
    );
  }

  /** Return what is chosen, by name. */
  values() {
    const valueOf = ({ setting, field }) => (setting.choices ? field.value : field.valueAsNumber);
    return Object.fromEntries(this.fields.map((one) => [one.setting.name, valueOf(one)]));
  }
}

function choice({ name, value, choices }) {
  const options = Object.entries(choices).map(([key, label]) => new Option(label, key));
  const field = element("select", { id: name }, ...options);
  field.value = value;
  return field;
}

function size({ name, value, least, greatest, trained }) {
  const title = `${least} to ${greatest}${trained ? `; in training ${rangeText(trained)}` : ""}`;
  return element("input", { type: "number", id: name, min: least, max: greatest, value, title });
}

function clamp(field) {
  field.value = Math.min(Math.max(Math.round(field.valueAsNumber) || 0, field.min), field.max);
}

function rangeText([low, high]) {
  return low === high ? `${low}` : `${low} to ${high}`;
}
