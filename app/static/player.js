import { element } from "./dom.js";
import { extent } from "./parts.js";

const STEPS_PER_SECOND = 8; // where it is not known how long a step is
const RATES = [3000, 192_000]; // Hz, of sound that browsers play

/** The clock of the page: moves through the steps of a run, with the sound of one of its waves if it has any. */
export class Player {
  /**
   * onMove: called with the place in time, in steps, of which 0 is the beginning of the first. onNeed: called with a
   * number of steps, of which not all are done; returns when they are.
   */
  constructor({ play, position, speed, hearing, sound }, { onMove, onNeed }) {
    Object.assign(this, { play, position, speed, hearing, sound, onMove, onNeed });
    this.at = 0;
    play.addEventListener("click", () => this.toggle());
    position.addEventListener("input", () => this.seek(position.valueAsNumber));
    for (const choice of [speed, sound]) choice.addEventListener("change", () => this.seek(this.at));
  }

  /** Be ready to play `steps` steps; waves: [{title, values, perStep}]; nothing is played by itself. */
  load({ steps, seconds, samplingRate, waves = [] }) {
    this.pause();
    Object.assign(this, { steps, samplingRate, stepSeconds: seconds ?? 1 / STEPS_PER_SECOND, at: 0, done: steps });
    this.waves = samplingRate >= RATES[0] && samplingRate <= RATES[1] ? waves : [];
    const sounds = this.waves.map(({ title }, index) => new Option(title, index));
    this.sound.replaceChildren(...sounds, new Option("off", ""));
    this.hearing.hidden = this.waves.length === 0;
    this.position.max = steps;
    this.position.value = 0;
  }

  /** Play this many steps from now on, all of them done. */
  extend(steps) {
    Object.assign(this, { steps, done: steps });
    this.position.max = steps;
  }

  /** The step that is shown, the last one at the end. */
  get step() {
    return Math.max(0, Math.min(Math.floor(this.at), this.steps - 1));
  }

  get isPlaying() {
    return this.started !== undefined;
  }

  /** Go to a step, whose answer is awaited where it is not done. */
  async goTo(step) {
    this.pause();
    const wanted = Math.max(0, Math.min(step, this.steps - 1));
    if (wanted >= this.done) await this.onNeed(wanted + 1);
    this.show(wanted);
  }

  toggle() {
    if (this.isPlaying) this.pause();
    else this.start();
  }

  start() {
    if (this.at >= this.steps) this.at = 0;
    this.play.textContent = "Pause";
    this.from = this.at;
    this.started = performance.now();
    this.hear();
    this.frame = requestAnimationFrame(() => this.tick());
  }

  pause() {
    this.play.textContent = "Play";
    this.started = undefined;
    cancelAnimationFrame(this.frame);
    this.source?.stop();
    this.source = undefined;
  }

  /** Go to a place in time, when its steps are done, and on from there if it plays. */
  async seek(at) {
    const plays = this.isPlaying;
    this.pause();
    if (Math.ceil(at) > this.done) await this.onNeed(Math.ceil(at));
    this.show(at);
    if (plays) this.start();
  }

  async tick() {
    const played = (performance.now() - this.started) / 1000;
    const at = Math.min(this.from + (played * Number(this.speed.value)) / this.stepSeconds, this.steps);
    if (Math.ceil(at) > this.done) {
      const { started } = this;
      await this.onNeed(Math.min(Math.ceil(at), this.steps));
      if (this.started !== started) return; // it was paused meanwhile
    }
    this.show(at);
    if (this.at >= this.steps) return this.pause();
    this.frame = requestAnimationFrame(() => this.tick());
  }

  show(at) {
    this.at = at;
    this.position.value = at;
    this.onMove(at);
  }

  /** Play the sound of the chosen wave from here on. */
  hear() {
    const wave = this.waves[this.sound.value === "" ? -1 : Number(this.sound.value)];
    if (!wave) return;
    this.audio ??= new AudioContext();
    const buffer = this.audio.createBuffer(1, wave.values.length, this.samplingRate);
    const [low, high] = extent(wave.values);
    const loudest = Math.max(1, -low, high);
    buffer.copyToChannel(Float32Array.from(wave.values, (value) => value / loudest), 0);
    this.source = new AudioBufferSourceNode(this.audio, { buffer, playbackRate: Number(this.speed.value) });
    this.source.connect(this.audio.destination);
    this.source.start(0, this.at * this.stepSeconds);
  }
}

/** Return the options of a choice of speeds. */
export function speedOptions() {
  return ["0.25", "0.5", "1", "2", "4"].map((speed) => element("option", { value: speed }, `${speed}×`));
}
