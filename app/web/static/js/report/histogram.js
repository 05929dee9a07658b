// How the cosines lie, and a slider that parts them.

import { framed, h, svg } from "../dom.js";
import { number } from "../format.js";
import { rangeOf, tidy } from "./decide.js";

const BINS = 60;

export function histogram(decisions) {
  const { layers } = decisions;
  const cosines = layers.map((layer) => layer.cosine);
  const range = rangeOf(
    cosines.filter((value) => value !== null),
    decisions.edge,
  );
  const bins = cosines.map((value) => (value === null ? -1 : binOf(value, range)));
  const bars = barsOf(Math.max(1, ...counted(bins)));
  const line = svg("line", {
    class: "line",
    y1: -4,
    y2: 100,
    "vector-effect": "non-scaling-stroke",
  });
  const slider = h("input", {
    type: "range",
    min: range.low,
    max: range.high,
    step: range.step,
    value: decisions.edge ?? range.low,
    "aria-label": "Threshold of the cosine",
    class: "no-print",
  });
  const exact = h("input", {
    type: "number",
    min: -1,
    max: 1,
    step: "any",
    value: decisions.edge === null ? "" : tidy(decisions.edge),
    "aria-label": "Threshold as a number",
    class: "no-print",
  });
  const draw = framed(() => drawn(decisions, { bins, bars, line, slider, exact, range }));
  slider.addEventListener("input", () => decisions.decideBy(tidy(Number(slider.value))));
  exact.addEventListener("change", () => {
    if (exact.value !== "" && exact.checkValidity()) decisions.decideBy(Number(exact.value));
  });
  decisions.onChange(draw);
  draw();
  return h(
    "div",
    { class: "histogram" },
    h("div", { class: "row apart" }, h("h2", { id: "histogram-title" }, "Threshold"), exact),
    h(
      "p",
      { class: "hint" },
      "Modules with a cosine at or below it are projected. Move it: nothing is written until you patch.",
    ),
    svg(
      "svg",
      {
        viewBox: "0 -4 600 104",
        preserveAspectRatio: "none",
        role: "img",
        "aria-label": describe(cosines),
      },
      svg("line", {
        class: "axis",
        x1: 0,
        x2: 600,
        y1: 100,
        y2: 100,
        "vector-effect": "non-scaling-stroke",
      }),
      bars.all,
      line,
    ),
    slider,
    h(
      "div",
      { class: "ends" },
      h("span", {}, number(range.low)),
      h("span", {}, "cosine"),
      h("span", {}, number(range.high)),
    ),
  );
}

function describe(cosines) {
  const known = cosines.filter((value) => value !== null).sort((one, other) => one - other);
  if (!known.length) return "Histogram of cosines: no module has one.";
  const at = (share) => number(known[Math.floor(share * (known.length - 1))], 3);
  return `Histogram of ${known.length} cosines from ${at(0)} to ${at(1)}, median ${at(0.5)}.`;
}

function binOf(value, { low, high }) {
  return Math.min(BINS - 1, Math.max(0, Math.floor(((value - low) / (high - low)) * BINS)));
}

function counted(bins) {
  const counts = new Array(BINS).fill(0);
  for (const bin of bins) if (bin >= 0) counts[bin] += 1;
  return counts;
}

function barsOf(most) {
  const bar = (name, i) =>
    svg("rect", { class: name, x: (i * 600) / BINS + 0.5, width: 600 / BINS - 1 });
  const of = (name) => Array.from({ length: BINS }, (_, i) => bar(name, i));
  const bars = { projected: of("projected"), kept: of("kept"), scale: 96 / most };
  return { ...bars, all: [...bars.projected, ...bars.kept] };
}

function drawn(decisions, { bins, bars, line, slider, exact, range }) {
  const projected = new Array(BINS).fill(0);
  const kept = new Array(BINS).fill(0);
  bins.forEach((bin, i) => {
    if (bin >= 0) (decisions.now[i] === "projected" ? projected : kept)[bin] += 1;
  });
  for (let i = 0; i < BINS; i += 1) {
    stood(bars.projected[i], 100, projected[i] * bars.scale);
    stood(bars.kept[i], 100 - projected[i] * bars.scale, kept[i] * bars.scale);
  }
  placed(decisions.edge, line, range);
  const { edge } = decisions;
  if (edge === null) return;
  if (Number(slider.value) !== edge) slider.value = edge;
  if (document.activeElement !== exact) exact.value = tidy(edge);
  const count = decisions.now.filter((decision) => decision === "projected").length;
  slider.setAttribute(
    "aria-valuetext",
    `${number(edge)}: ${count} of ${decisions.layers.length} modules projected`,
  );
}

function stood(bar, bottom, height) {
  if (bar.height.baseVal.value === height && bar.y.baseVal.value === bottom - height) return;
  bar.setAttribute("y", bottom - height);
  bar.setAttribute("height", height);
}

function placed(edge, line, { low, high }) {
  line.setAttribute("visibility", edge === null ? "hidden" : "visible");
  if (edge === null) return;
  const x = Math.min(600, Math.max(0, ((edge - low) / (high - low)) * 600));
  line.setAttribute("x1", x);
  line.setAttribute("x2", x);
}
