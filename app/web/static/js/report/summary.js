// What the report says first: warnings, what nobody looked at, and the counts.

import { framed, h } from "../dom.js";
import { number } from "../format.js";
import { summarised } from "./decide.js";

export function warningList(report) {
  const parts = report.unscreened ?? [];
  const items = [
    ...(report.warnings ?? []).map((text) => h("li", { class: "note warn" }, text)),
    ...parts
      .slice(0, 20)
      .map((part) =>
        h(
          "li",
          { class: "note warn" },
          h("b", {}, `Not screened, ${part.decision}: `),
          h("code", {}, part.name),
          ` ${part.reason}`,
        ),
      ),
    parts.length > 20 &&
      h("li", { class: "note warn" }, `and ${parts.length - 20} more parts that were not screened`),
  ].filter(Boolean);
  return items.length ? h("ul", { class: "warnings", "aria-label": "Warnings" }, items) : null;
}

const TILES = [
  ["projected", "Projected"],
  ["kept", "Kept"],
  ["skipped", "Not screened"],
  ["threshold", "Threshold"],
  ["mean_cosine", "Mean cosine"],
  ["median_retained_energy", "Median retained"],
  ["mean_pdst", "Mean pdst"],
];

export function summaryTiles(decisions) {
  const { report, layers } = decisions;
  const tiles = TILES.map(([key, title]) => ({ key, ...tile(key, title, layers.length) }));
  const draw = framed(() => {
    const now =
      decisions.threshold === null
        ? report.summary
        : { ...report.summary, ...summarised(layers, decisions.now, decisions.threshold) };
    for (const each of tiles) each.show(now[each.key], report.summary[each.key]);
  });
  decisions.onChange(draw);
  draw();
  return h(
    "dl",
    { class: "tiles", "aria-label": "Summary" },
    tiles.map((each) => each.element),
  );
}

function tile(key, title, total) {
  const value = h("span");
  const was = h("span", { class: "was" });
  const of = ["projected", "kept", "skipped"].includes(key) && h("small", {}, ` of ${total}`);
  return {
    element: h("div", { class: `tile ${key}` }, h("dt", {}, title), h("dd", {}, value, of, was)),
    show(now, before) {
      const said = number(now);
      if (value.textContent === said) return;
      value.textContent = said;
      was.textContent = said === number(before) ? "" : `was ${number(before)}`;
    },
  };
}
