// Settings of a patch by utility (across) and refusal (up), with the frontier and the choice.

import { h, svg } from "../dom.js";
import { fixed } from "../format.js";
import { cells, section, table } from "./tables.js";

const WIDTH = 640;
const HEIGHT = 400;
const EDGE = { left: 68, right: 20, top: 16, bottom: 50 };
const SHAPES = [
  "M-5-5H5V5H-5Z",
  "M0-6.5L6 5H-6Z",
  "M0-7L7 0L0 7L-7 0Z",
  "M0 6.5L6-5H-6Z",
  "M-2-6.5H2V-2H6.5V2H2V6.5H-2V2H-6.5V-2H-2Z",
  "M-5.5 0A5.5 5.5 0 1 0 5.5 0A5.5 5.5 0 1 0-5.5 0Z",
  "M0-8L1.9-2.6L7.6-2.5L3 1L4.7 6.5L0 3.2L-4.7 6.5L-3 1L-7.6-2.5L-1.9-2.6Z",
];
const FAMILIES = ["approximate", "subspace", "complement", "scale", "prune", "salora"];

export function frontierSections(report) {
  const spots = [
    ...report.points.flatMap((point, i) => spotOf(report, point, i) ?? []),
    ...chatSpot(report),
  ];
  return [
    choiceSection(report),
    spots.length > 0 && section("Frontier", plot(report, spots), legend(spots)),
    pointsSection(report),
    heldOut(report),
  ];
}

function valueOf(cell) {
  if (cell?.rate) return cell.rate;
  return cell?.loss
    ? { value: -cell.loss.value, low: -cell.loss.high, high: -cell.loss.low }
    : null;
}

function placeOf(list) {
  const x = valueOf(list.find((cell) => cell.role === "task"));
  const y = valueOf(list.find((cell) => cell.role === "harmful"));
  return x && y ? { x, y } : null;
}

function spotOf(report, point, i) {
  const place = placeOf(point.cells);
  if (!place) return null;
  return {
    ...place,
    family: point.family,
    isOn: report.frontier.includes(i),
    isChosen: isChosen(report, point),
    said: `${point.family}, step ${point.step} of ${point.steps}`,
  };
}

function chatSpot(report) {
  const place = placeOf(report.original.filter((cell) => cell.subject === "chat"));
  return place
    ? [{ ...place, family: "chat model", isOn: false, isChosen: false, said: "the chat model" }]
    : [];
}

const isChosen = (report, point) =>
  ["family", "step", "steps"].every((name) => report.choice?.point[name] === point[name]);

function scaled(values, from, to) {
  const low = Math.min(...values);
  const span = Math.max(Math.max(...values) - low, 1e-6);
  const at = (value) => from + ((value - low + 0.04 * span) / (1.08 * span)) * (to - from);
  return { at, ticks: Array.from({ length: 5 }, (_, i) => low + (span * i) / 4) };
}

function plot(report, spots) {
  const across = scaled(
    spots.flatMap(({ x }) => [x.low, x.high]),
    EDGE.left,
    WIDTH - EDGE.right,
  );
  const up = scaled(
    spots.flatMap(({ y }) => [y.low, y.high]),
    HEIGHT - EDGE.bottom,
    EDGE.top,
  );
  const edge = spots.filter((spot) => spot.isOn).sort((one, other) => one.x.value - other.x.value);
  const description = `${spots.length} measured settings by utility and refusal on the tuning split, ${edge.length} of them on the frontier. The table below has the same numbers.`;
  return svg(
    "svg",
    { class: "plot", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": description },
    axes(across, up),
    svg("polyline", {
      class: "edge",
      points: edge.map(({ x, y }) => `${across.at(x.value)},${up.at(y.value)}`).join(" "),
    }),
    spots.map((spot) => mark(spot, across.at, up.at)),
  );
}

function axes(across, up) {
  const bottom = HEIGHT - EDGE.bottom;
  const text = (x, y, anchor, words) => svg("text", { x, y, "text-anchor": anchor }, words);
  return [
    up.ticks.map((tick) => [
      svg("line", {
        class: "grid",
        x1: EDGE.left,
        x2: WIDTH - EDGE.right,
        y1: up.at(tick),
        y2: up.at(tick),
      }),
      text(EDGE.left - 8, up.at(tick) + 4, "end", fixed(tick, 2)),
    ]),
    across.ticks.map((tick) => text(across.at(tick), bottom + 20, "middle", fixed(tick, 2))),
    svg("line", { class: "axis", x1: EDGE.left, x2: WIDTH - EDGE.right, y1: bottom, y2: bottom }),
    text((WIDTH + EDGE.left) / 2, HEIGHT - 8, "middle", "utility: the task"),
    svg(
      "text",
      { transform: `translate(14 ${bottom / 2}) rotate(-90)`, "text-anchor": "middle" },
      "refusal of harmful prompts",
    ),
  ];
}

function mark(spot, across, up) {
  const [x, y] = [across(spot.x.value), up(spot.y.value)];
  const at = styleOf(spot.family);
  return svg(
    "g",
    { class: `family-${at}` },
    svg(
      "title",
      {},
      `${spot.said}: utility ${fixed(spot.x.value, 3)}, refusal ${fixed(spot.y.value, 3)}`,
    ),
    svg("line", {
      class: "whisker",
      x1: across(spot.x.low),
      x2: across(spot.x.high),
      y1: y,
      y2: y,
    }),
    svg("line", { class: "whisker", x1: x, x2: x, y1: up(spot.y.low), y2: up(spot.y.high) }),
    svg("path", {
      class: spot.isOn ? "spot filled" : "spot",
      d: SHAPES[at % SHAPES.length],
      transform: `translate(${x} ${y})`,
    }),
    spot.isChosen && svg("circle", { class: "ring", cx: x, cy: y, r: 11 }),
  );
}

const styleOf = (family) => (FAMILIES.includes(family) ? FAMILIES.indexOf(family) : 6);

function legend(spots) {
  const names = [...new Set(spots.map((spot) => spot.family))];
  const entry = (name) =>
    h(
      "span",
      {},
      svg(
        "svg",
        {
          width: 16,
          height: 16,
          viewBox: "-8 -8 16 16",
          class: `plot family-${styleOf(name)}`,
          "aria-hidden": "true",
        },
        svg("path", { class: "spot filled", d: SHAPES[styleOf(name) % SHAPES.length] }),
      ),
      name,
    );
  return h(
    "div",
    { class: "legend" },
    names.map(entry),
    h("span", {}, "filled: on the frontier; ringed: chosen"),
  );
}

function choiceSection(report) {
  const { choice } = report;
  if (!choice) return section("The choice", h("p", {}, "No setting was chosen."));
  return section(
    "The choice",
    h(
      "p",
      {},
      h("b", {}, `${choice.point.family}, step ${choice.point.step} of ${choice.point.steps}. `),
      choice.reason,
    ),
    h(
      "p",
      {},
      report.satisfied
        ? "It holds the constraints on both splits."
        : "It does not hold the constraints on both splits.",
    ),
    choice.patch && h("pre", {}, JSON.stringify(choice.patch, null, 2)),
  );
}

function heldOut({ choice }) {
  return (
    choice &&
    section(
      "On rows that took no part in choosing",
      cells(choice.held_out.table, "Held-out rows"),
      h(
        "ul",
        {},
        choice.held_out.comparisons.map((each) => h("li", {}, each.sentence)),
      ),
    )
  );
}

function pointsSection(report) {
  const rows = (stage) =>
    report.points.flatMap((point, i) => (point.stage === stage ? [cellsOf(report, point, i)] : []));
  const screened = rows("screened");
  return section(
    "Every setting",
    table("Measured settings, on the tuning split", TITLES, rows("measured")),
    screened.length > 0 &&
      h(
        "details",
        {},
        h("summary", {}, `${screened.length} settings that were screened`),
        h(
          "p",
          { class: "hint" },
          "By likelihoods, nothing generated: not to be compared with the rates above.",
        ),
        table("Screened settings", TITLES, screened),
      ),
  );
}

const TITLES = ["Family", "Step", "Refusal", "Over-refusal", "Utility", "Drift", "Standing"];

function cellsOf(report, point, i) {
  return [
    point.family,
    `${point.step}/${point.steps}`,
    fixed(point.scores.refusal, 3),
    fixed(point.scores.over_refusal, 3),
    fixed(point.scores.utility, 3),
    fixed(point.scores.drift, 3),
    [
      report.frontier.includes(i) && "frontier",
      i === report.default && "default",
      isChosen(report, point) && "chosen",
    ]
      .filter(Boolean)
      .join(", ") || "–",
  ];
}
