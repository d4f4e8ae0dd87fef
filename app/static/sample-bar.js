// Which sample is sent to the model: its seed and its sizes, where it comes from, and whether the memory has room for it.

import { modelSample } from "./api.js";
import { Settings } from "./settings.js";

const MOST_SEED = 2 ** 32; // of those that are drawn here; one may ask for greater ones

const ORIGINS = {
  recording: "A recording that came with the model",
  card: "Random inputs within the model's card: its task is not known here",
  task: "",
};

export const BY_HAND = "Changed by hand";

/** The controls of the sample. `query` is what names it: {seed, ...the sizes that were asked for}. */
export class SampleBar {
  /**
   * nodes: seed, another, settings, origin, fit, enough, and the field memory-size. onChange is called with the name of what was
   * changed by hand: "seed", "memory-size", or a size.
   */
  constructor(nodes, onChange) {
    Object.assign(this, { nodes, onChange, query: {} });
    this.settings = new Settings(nodes.settings, (name) => {
      this.query[name] = this.settings.values()[name];
      onChange(name);
    });
    nodes.seed.addEventListener("change", () => this.reseed(Math.max(0, Math.round(nodes.seed.valueAsNumber) || 0)));
    nodes.another.addEventListener("click", () => this.reseed(Math.floor(Math.random() * MOST_SEED)));
    nodes["memory-size"].addEventListener("input", () => this.showFit());
    nodes.enough.addEventListener("click", () => this.takeEnough());
  }

  reseed(seed) {
    this.query.seed = seed;
    this.onChange("seed");
  }

  /** Return the sample of `model` that was asked for; of sizes that exclude each other, `changed` alone counts. */
  async draw({ name }, changed) {
    try {
      return await modelSample(name, this.query);
    } catch (error) {
      const { seed, ...sizes } = this.query;
      if (error.code !== "invalid_request" || Object.keys(sizes).length === 0) throw error;
      this.query = { seed, ...(changed in sizes && Object.keys(sizes).length > 1 && { [changed]: sizes[changed] }) };
      return this.draw({ name }, changed);
    }
  }

  /** Show a sample; isByHand: something made from it by hand is sent instead. */
  show(sample, isByHand) {
    this.sample = sample;
    this.nodes.seed.value = sample.seed;
    this.settings.show(sample.settings);
    this.showOrigin(isByHand ? BY_HAND : ORIGINS[sample.drawn_from]);
    this.showFit();
  }

  showOrigin(text) {
    this.nodes.origin.textContent = text;
  }

  /** Take as many locations as are needed. */
  takeEnough() {
    const { "memory-size": field } = this.nodes;
    field.value = this.sample.fits.needed;
    field.dispatchEvent(new Event("input"));
    this.onChange("memory-size");
  }

  /** Say whether the memory has a location for each thing that is to be kept. */
  showFit() {
    const { fit, "memory-size": field } = this.nodes;
    const { needed, of, memory_size: usual } = this.sample?.fits ?? {};
    const slots = Number.isNaN(field.valueAsNumber) ? usual : field.valueAsNumber;
    const isTooFew = needed > slots;
    fit.textContent = isTooFew ? `too few for ${needed} ${of}` : "";
    this.nodes.enough.hidden = !isTooFew;
    this.nodes.enough.textContent = `Take ${needed}`;
  }
}
