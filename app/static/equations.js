// The equations of one step with its numbers, by model.

import { dncGroups } from "./dnc-equations.js";
import { Moments } from "./equation-parts.js";
import { ntmGroups } from "./ntm-equations.js";

const GROUPS = { dnc: dncGroups, ntm: ntmGroups };

/**
 * Return the equations of a step, [{title, focus, lines}]; see equation-parts.js. A model without a memory has none.
 * slot: whose numbers to put in, or undefined, for the slots of the largest weights; focus is the one that was taken.
 */
export function equationsOf(run, step, slot) {
  const groups = run.has("write_weights") && GROUPS[run.model.kind]?.(new Moments(run, step), slot);
  if (!groups) return [];
  const traced = groups.map((group) => ({ ...group, lines: group.lines.filter((line) => line?.values?.length > 0) }));
  return traced.filter(({ lines }) => lines.length > 0);
}
