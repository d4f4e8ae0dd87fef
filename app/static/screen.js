// What is shown of a run: its verdict, its pictures, and the cursor that they follow.

import { verdictOf } from "./answers.js";
import { ComparingStage, VIEWS } from "./compare.js";
import { columnText } from "./figure.js";
import { Player } from "./player.js";
import { shownLeaves, shownTraces } from "./plots.js";
import { RunPlots } from "./run-plots.js";
import { Story } from "./story.js";
import { wrongRows } from "./verdict.js";

/** Shows one run at a time. `run` is that one, `player` its clock. */
export class Screen {
  /** page: the elements by their ids; on: {move(step), need(count)}: the cursor moves; steps are wanted, see player.js. */
  constructor(page, on) {
    Object.assign(this, { page, on });
    const seek = (step) => this.player.goTo(step);
    const point = (text) => this.point(text);
    this.player = new Player(page, { onMove: (at) => this.moveTo(at), onNeed: on.need });
    this.story = new Story(page.story, seek);
    this.stage = new ComparingStage(page.stage, page.life, { point, seek });
    this.plots = new RunPlots(page.plots, point);
    page.explain.addEventListener("click", () => this.explain(page.explain.ariaExpanded !== "true"));
  }

  /** Give the screen to whom the next run belongs, {state(leaves), leave()}; whom it belonged to leaves it. */
  give(owner) {
    this.player.pause();
    this.page.results.classList.remove("stale");
    this.owner?.leave();
    this.owner = owner;
  }

  /** Show a run, of which no step is shown yet. */
  show(run) {
    const { page, stage, player } = this;
    this.run = run;
    this.wrong = wrongRows([]);
    page.results.hidden = false;
    this.isStaged = !run.model.graph;
    page.stage.hidden = page.life.hidden = !this.isStaged;
    page.explain.hidden = !this.isStaged || !shownTraces(run.model).every((name) => run.has(name));
    if (page.explain.hidden) this.explain(false); // a recording may have too few traces for the equations
    this.plots.clear();
    if (this.isStaged) this.load();
    this.story.load(run);
    player.load({ steps: run.length, ...this.time });
    player.done = 0;
    this.judge();
  }

  load() {
    this.stage.load(this.run, (step) => this.wrong(step));
  }

  hide() {
    this.page.results.hidden = true;
  }

  /** Mark that what is shown is not of what is sent now. */
  markStale() {
    this.page.results.classList.add("stale");
  }

  get time() {
    const { seconds, samplingRate } = this.run.task;
    return { seconds, samplingRate };
  }

  /** Show the steps that were done since. */
  async grow() {
    const { run, player } = this;
    this.judge();
    player.done = run.done;
    this.story.grow();
    if (this.isStaged) this.stage.grow();
    if (this.isStaged && (run.memory || !run.model.state.memory)) return;
    const state = (await this.owner.state(shownLeaves(run.model))) ?? {};
    if (run !== this.run) return;
    if (this.isStaged) this.plots.showMemory(state);
    else this.showPlots(state);
  }

  /** Show the steps that were done since, of a run whose end is not known; isLonger: its axis of time is another. */
  async extend(isLonger) {
    const { run, stage, story, player } = this;
    if (isLonger && this.isStaged) this.load();
    story.load(run);
    if (run.done > 0) await this.grow();
    if (run !== this.run) return;
    if (this.isStaged) stage.fit();
    player.extend(run.done);
  }

  /** Show all of a run of a graph: curves and heat maps. */
  showPlots(state) {
    const { run, player, plots } = this;
    const { at } = player;
    plots.show(run, state);
    player.load({ steps: run.length, ...this.time, waves: plots.waves });
    Object.assign(player, { at, done: run.done });
  }

  /** Show the verdict, on all that is done. */
  judge() {
    const { marks, ...verdict } = verdictOf(this.run);
    this.wrong = wrongRows(marks);
    Object.assign(this.page.verdict, verdict);
  }

  /** Show the value under the pointer. */
  point(text) {
    this.page.readout.textContent = text;
  }

  /** Show a place in time, in steps: every view follows it. */
  moveTo(at) {
    const { page, run, player } = this;
    const { step } = player;
    const isShown = player.isPlaying && this.shownStep === step && this.shownDone === run.done;
    if (!isShown) this.showStep(step); // most frames of a run that plays are of the step before
    if (!this.isStaged) this.plots.moveTo(at, step, page.place.textContent);
  }

  showStep(step) {
    const { page, run } = this;
    Object.assign(this, { shownStep: step, shownDone: run.done });
    this.on.move(step);
    page.place.textContent = columnText({ columnName: "step", seconds: run.task.seconds }, run.from + step);
    this.story.moveTo(step);
    if (this.isStaged) this.stage.moveTo(step);
  }

  /** Show or hide the equations. */
  explain(isShown) {
    this.page.explain.ariaExpanded = `${isShown}`;
    this.stage.explain(isShown);
  }

  /** Return what there is to share. */
  shown() {
    const { page, run, player, stage } = this;
    const root = this.isStaged ? page.stage : page.plots;
    const { b, view } = (this.isStaged && stage.pair) || {};
    return { run, branch: b?.run, view: VIEWS[view], root, step: player.step, verdict: page.verdict.textContent };
  }
}
