import { element } from "./dom.js";
import { extent } from "./parts.js";

const STEPS_PER_SECOND = 10; // where it is not known how long a step is
const RATES = [3000, 192_000]; // Hz, of sound that browsers play

/** Moves through the steps of a run, with the sound of one of its waves if it has any. */
export class Player {
  /** `onMove` is called with the place in time, in steps, of which 0 is the beginning of the first. */
  constructor({ bar, play, position, speed, hearing, sound }, onMove) {
    Object.assign(this, { bar, play, position, speed, hearing, sound, onMove });
    this.at = 0;
    play.addEventListener("click", () => (this.started ? this.pause() : this.start()));
    position.addEventListener("input", () => this.seek(position.valueAsNumber));
    for (const choice of [speed, sound]) choice.addEventListener("change", () => this.seek(this.at));
  }

  /** Be ready to play `steps` steps; waves: [{title, values, perStep}]; nothing is played by itself. */
  load({ steps, seconds, samplingRate, waves }) {
    this.pause();
    Object.assign(this, { steps, samplingRate, stepSeconds: seconds ?? 1 / STEPS_PER_SECOND, at: 0 });
    this.waves = samplingRate >= RATES[0] && samplingRate <= RATES[1] ? waves : [];
    const sounds = this.waves.map(({ title }, index) => new Option(title, index));
    this.sound.replaceChildren(...sounds, new Option("off", ""));
    this.hearing.hidden = this.waves.length === 0;
    this.position.max = steps;
    this.position.value = 0;
    this.bar.hidden = false;
  }

  /** Play nothing, and hide. */
  unload() {
    this.pause();
    this.bar.hidden = true;
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

  /** Go to a place in time, and on from there if it plays. */
  seek(at) {
    const plays = this.started !== undefined;
    this.pause();
    this.show(at);
    if (plays) this.start();
  }

  tick() {
    const played = (performance.now() - this.started) / 1000;
    this.show(Math.min(this.from + (played * Number(this.speed.value)) / this.stepSeconds, this.steps));
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
