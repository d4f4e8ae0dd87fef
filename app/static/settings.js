import { element } from "./dom.js";

/** The sizes of a sample, each with what it can be. */
export class Settings {
  /** `onChange` is called with the name of a size after every change by hand. */
  constructor(container, onChange) {
    Object.assign(this, { container, onChange, fields: [] });
  }

  /** Show the sizes of a sample: [{name, label, value, trained}], with least and greatest, or with choices. */
  show(settings) {
    const isSame = settings.length === this.fields.length && settings.every((one, at) => isLike(one, this.fields[at].setting));
    if (isSame) this.refresh(settings);
    else this.replace(settings);
  }

  /** Give the fields that are there their values, but for one that is being typed into. */
  refresh(settings) {
    for (const [at, one] of this.fields.entries()) {
      one.setting = settings[at];
      update(one.field, one.setting);
    }
  }

  replace(settings) {
    this.fields = settings.map((setting) => ({ setting, field: element(setting.choices ? "select" : "input", { id: setting.name }) }));
    for (const { setting, field } of this.fields) {
      update(field, setting);
      field.addEventListener("input", () => (field.dataset.typed = true));
      field.addEventListener("change", () => {
        delete field.dataset.typed;
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

function isLike(one, other) {
  return one.name === other.name && one.label === other.label && Boolean(one.choices) === Boolean(other.choices);
}

/** Give a field the limits and the value of its setting. */
function update(field, { value, least, greatest, trained, choices }) {
  if (choices) {
    field.replaceChildren(...Object.entries(choices).map(([key, label]) => new Option(label, key)));
  } else {
    const title = `${least} to ${greatest}${trained ? `; in training ${rangeText(trained)}` : ""}`;
    Object.assign(field, { type: "number", min: least, max: greatest, title });
  }
  if (!field.dataset.typed) field.value = value;
}

function clamp(field) {
  field.value = Math.min(Math.max(Math.round(field.valueAsNumber) || 0, field.min), field.max);
}

function rangeText([low, high]) {
  return low === high ? `${low}` : `${low} to ${high}`;
}
