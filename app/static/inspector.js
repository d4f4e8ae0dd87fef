// The page: choose a model, send it a sequence, look at its run.
//
//     Sender     what is sent: the model, its sample, what is drawn
//     Conductor  the page's own runs, in sessions                    } to whom the screen belongs, one at a time
//     Guests     runs of others: sessions that are followed, files   }
//     Screen     what is shown of a run, at the cursor

import * as address from "./address.js";
import { forgetKey, modelNames } from "./api.js";
import { Conductor } from "./conductor.js";
import { watchFiles } from "./drop.js";
import { Guests } from "./guests.js";
import { closeElsewhere, watchKeys } from "./keyboard.js";
import { Notices } from "./notices.js";
import { Numbers } from "./numbers.js";
import { speedOptions } from "./player.js";
import { Screen } from "./screen.js";
import { Sender } from "./sender.js";
import { ShareMenu } from "./share.js";
import { Turns } from "./turns.js";
import { openViews, watchViews } from "./views.js";
import { WhatIf } from "./what-if.js";

const FIRST = "dnc-copy"; // the model that is shown first, where it is served: README explains it

const page = Object.fromEntries([...document.querySelectorAll("[id]")].map((node) => [node.id, node]));
const turns = new Turns();
const notices = new Notices(page);
const screen = new Screen(page, { move, need: (count) => attempt(() => conductor.advance(count)) });
const sender = new Sender(page, turns, notices, {
  point: (text) => screen.point(text),
  run: () => conductor.run(),
  change: () => screen.owner === conductor && screen.markStale(),
});
const whatIf = new WhatIf(page, screen.stage, {
  attempt,
  finish: () => conductor.advance(screen.run.length),
  showBusy: () => notices.showBusy(),
});
const conductor = new Conductor({ sender, screen, turns, notices, whatIf });
const guests = new Guests(page, { sender, screen, turns, notices, whatIf });
const { player } = screen;

async function start() {
  const names = await modelNames();
  page.model.replaceChildren(...names.map((name) => new Option(name)));
  await visit(address.read());
}

/** Show what an address names; where its session is refused, there is a model to go on with. */
async function visit(place) {
  const names = [...page.model.options].map(({ value }) => value);
  const chooseModel = () => choose(place.model ?? (names.includes(FIRST) ? FIRST : names[0]), place);
  if (!place.session) return chooseModel();
  try {
    await guests.follow(place.session, place);
  } catch (error) {
    if (!sender.model) await chooseModel();
    throw error;
  }
}

/** Choose a model, and run what is sent to it; place: what an address says of both. */
async function choose(name, place) {
  player.pause();
  if (await sender.choose(name, place, turns.begin())) await conductor.run(place);
}

/** Note where the cursor is: one who moves it back has a session that is followed go on without it. */
function move(step) {
  if (guests.isLive && step < player.steps - 1) guests.setLive(false);
  whatIf.moveTo(step);
  address.amend({ step: guests.isLive ? undefined : screen.run.from + step });
}

function attempt(action) {
  return notices.attempt(action);
}

function onClick(id, action) {
  page[id].addEventListener("click", () => attempt(action));
}

const KEYS = {
  ArrowLeft: () => player.goTo(player.step - 1),
  ArrowRight: () => player.goTo(player.step + 1),
  Home: () => player.goTo(0),
  End: () => player.goTo(player.steps - 1),
  Backspace: () => attempt(() => screen.owner.rewind()),
  " ": () => (guests.isLive ? guests.setLive(false) : player.toggle()),
};

new Numbers(page);
new ShareMenu(page.share, () => screen.shown());
page.speed.replaceChildren(...speedOptions());
page.speed.value = "1";
page.model.addEventListener("change", () => attempt(() => choose(page.model.value)));
onClick("run", () => conductor.run());
onClick("restart", () => conductor.restart());
page.step.addEventListener("click", () => conductor.step());
onClick("rewind", () => screen.owner.rewind());
onClick("leave", () => conductor.run());
onClick("forget-key", forgetKey);
page.live.addEventListener("click", () => guests.setLive(!guests.isLive));
page.try.addEventListener("click", () => guests.isLive && guests.setLive(false)); // the cursor stays where something is changed
page["attach-form"].addEventListener("submit", (event) => {
  event.preventDefault();
  attempt(() => guests.follow(page.session.value.trim()));
});
closeElsewhere(page.about);
watchKeys(KEYS, () => screen.run !== undefined);
watchFiles(page, (file) => attempt(() => guests.openRecording(file)));
watchViews(() => address.amend({ view: openViews() }));
address.onTravel((place) => attempt(() => visit(place)));
addEventListener("pagehide", () => screen.owner?.leave());
attempt(start);
