// Layers down, kinds across: cosine or retained energy of each module, and what is decided of it.

import { framed, h } from "../dom.js";
import { number } from "../format.js";
import { mixed, onTheme, palette, rgb } from "./colours.js";
import { beside, boxOf, gridOf, indexAt, layoutOf } from "./grid.js";

const FONT = "11px system-ui, sans-serif";
const MEASURES = { cosine: "Cosine", retained_energy: "Retained energy" };

export function heatMap(decisions, { onHover, signal }) {
  const grid = gridOf(decisions.layers);
  const canvas = h("canvas", { "aria-hidden": "true" });
  const map = {
    decisions,
    grid,
    canvas,
    measure: "cosine",
    colours: palette(),
    range: null,
    width: 0,
    layout: null,
  };
  const frame = h(
    "div",
    {
      class: "heat",
      tabindex: "0",
      role: "application",
      "aria-roledescription": "heat map",
      "aria-label": `Heat map of ${decisions.layers.length} modules, ${grid.rows.length} layers by ${grid.kinds.length} kinds. Arrow keys go from module to module; the table below has the same numbers.`,
      "aria-describedby": "module-detail",
    },
    canvas,
  );
  const legend = h("div", { class: "legend" });
  const draw = framed(() => drawn(map));
  const measure = (name) => {
    map.measure = name;
    map.range = rangeOf(decisions.layers, name);
    told(legend, map);
    draw();
  };
  measure("cosine");
  decisions.onChange(draw);
  new ResizeObserver(([entry]) => {
    map.width = entry.contentRect.width;
    map.layout = null;
    draw();
  }).observe(frame);
  onTheme(() => {
    map.colours = palette();
    told(legend, map);
    drawn(map); // now, because on paper there is no next frame
  }, signal);
  listen(frame, map, onHover);
  return h(
    "section",
    { class: "panel", "aria-labelledby": "heat-title" },
    h(
      "div",
      { class: "row apart" },
      h("h2", { id: "heat-title" }, "By layer and kind"),
      measureSwitch(measure),
    ),
    frame,
    legend,
  );
}

function measureSwitch(onChange) {
  const options = Object.entries(MEASURES).map(([name, text], i) =>
    h(
      "label",
      {},
      h("input", {
        type: "radio",
        name: "heat-measure",
        value: name,
        checked: i === 0,
        onchange: () => onChange(name),
      }),
      text,
    ),
  );
  return h(
    "div",
    { class: "switch no-print", role: "group", "aria-label": "Colours show" },
    options,
  );
}

function rangeOf(layers, name) {
  const known = layers.map((layer) => layer[name]).filter((value) => value !== null);
  return known.length ? [Math.min(...known), Math.max(...known)] : [0, 1];
}

function listen(frame, map, onHover) {
  const at = (event) => {
    const box = map.canvas.getBoundingClientRect();
    return (
      map.layout && indexAt(map.grid, map.layout, event.clientX - box.left, event.clientY - box.top)
    );
  };
  frame.addEventListener(
    "pointermove",
    framed((event) => onHover(at(event))),
  );
  frame.addEventListener(
    "pointerleave",
    framed(() => onHover(null)),
  );
  frame.addEventListener("click", (event) => {
    const index = at(event);
    if (index !== null) map.decisions.choose(index);
  });
  frame.addEventListener("keydown", (event) => {
    const next = stepped(map, event.key);
    if (next === null) return;
    event.preventDefault();
    map.decisions.choose(next);
  });
}

function stepped({ decisions, grid }, key) {
  const last = decisions.layers.length - 1;
  if (key === "Home") return 0;
  if (key === "End") return last;
  if (!key.startsWith("Arrow")) return null;
  return decisions.chosen === null ? 0 : beside(grid, decisions.chosen, key);
}

function drawn(map) {
  const { canvas, grid, decisions } = map;
  if (!map.width) return;
  const context = canvas.getContext("2d");
  context.font = FONT;
  map.layout ??= layoutOf(grid, map.width, (text) => context.measureText(text).width);
  sized(canvas, map.layout, context);
  labelled(context, map);
  decisions.layers.forEach((layer, i) => painted(context, map, layer, i));
  if (decisions.chosen !== null) ringed(context, map, decisions.chosen);
}

function sized(canvas, { width, height }, context) {
  const scale = devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    canvas.style.height = `${height}px`;
  }
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, width, height);
}

function labelled(context, { grid, layout, colours }) {
  context.font = FONT;
  context.fillStyle = rgb(colours["ink-2"]);
  context.textBaseline = "middle";
  context.textAlign = "right";
  const every = Math.ceil(13 / layout.rowHeight);
  grid.rows.forEach((row, i) => {
    if (i % every === 0 || row === null)
      context.fillText(row ?? "other", layout.left - 6, layout.top + (i + 0.5) * layout.rowHeight);
  });
  grid.kinds.forEach((kind, i) => columnLabel(context, layout, kind, i));
}

function columnLabel(context, layout, kind, i) {
  const x = layout.left + (i + 0.5) * layout.columnWidth;
  if (!layout.upright && layout.columnWidth < 11 && i % Math.ceil(11 / layout.columnWidth)) return;
  context.save();
  context.translate(x, layout.top - 6);
  context.textAlign = layout.upright ? "center" : "left";
  if (!layout.upright) context.rotate(-Math.PI / 2);
  context.fillText(cut(kind), 0, layout.upright ? -4 : 0);
  context.restore();
}

const cut = (text) => (text.length > 22 ? `${text.slice(0, 20)}…` : text);

function painted(context, map, layer, i) {
  const box = boxOf(map.grid, map.layout, i);
  const value = layer[map.measure];
  const decision = map.decisions.now[i];
  if (value === null || decision === "skipped") return hatched(context, map, box);
  context.fillStyle = colourOf(map, value, decision);
  context.fillRect(box.x, box.y, box.width, box.height);
  if (decision === "projected" && Math.min(box.width, box.height) >= 9) {
    context.fillStyle = rgb(map.colours.surface);
    context.fillRect(box.x + box.width / 2 - 1.5, box.y + box.height / 2 - 1.5, 3, 3);
  }
}

/** Cosines away from the threshold are stronger: one colour for what is projected, one for the rest. */
function colourOf({ colours, measure, range, decisions }, value, decision) {
  const [low, high] = range;
  if (measure !== "cosine")
    return mixed(
      colours.sunken,
      colours.accent,
      0.08 + (0.92 * (value - low)) / Math.max(high - low, 1e-9),
    );
  const edge = decisions.edge ?? (decision === "projected" ? high : low);
  const furthest = Math.max(high - edge, edge - low, 1e-9);
  return mixed(
    colours.surface,
    colours[decision],
    0.32 + (0.68 * Math.abs(value - edge)) / furthest,
  );
}

function hatched(context, { colours }, { x, y, width, height }) {
  context.save();
  context.beginPath();
  context.rect(x, y, width, height);
  context.clip();
  context.strokeStyle = rgb(colours.skipped);
  context.strokeRect(x + 0.5, y + 0.5, width - 1, height - 1);
  context.beginPath();
  for (let from = x - height; from < x + width; from += 4) {
    context.moveTo(from, y + height);
    context.lineTo(from + height, y);
  }
  context.stroke();
  context.restore();
}

function ringed(context, { grid, layout, colours }, index) {
  const { x, y, width, height } = boxOf(grid, layout, index);
  context.lineWidth = 2;
  context.strokeStyle = rgb(colours.ink);
  context.strokeRect(x - 1, y - 1, width + 2, height + 2);
  context.lineWidth = 1;
}

function told(legend, map) {
  const [low, high] = map.range.map((value) => number(value, 3));
  const text =
    map.measure === "cosine"
      ? [
          swatch("projected", `${low} …  projected, paler near the threshold`),
          swatch("kept", `kept … ${high}`),
        ]
      : [h("span", {}, low, ramp(map), high), h("span", {}, "a dot: projected")];
  const skipped = map.decisions.stored.includes("skipped") && swatch("skipped", "not screened");
  legend.replaceChildren(...[...text, skipped].filter(Boolean));
}

const swatch = (name, text) => h("span", {}, h("i", { class: `swatch ${name}` }), text);

function ramp({ colours }) {
  const canvas = h("canvas", { width: 100, height: 1, "aria-hidden": "true" });
  const context = canvas.getContext("2d");
  for (let x = 0; x < 100; x += 1) {
    context.fillStyle = mixed(colours.sunken, colours.accent, 0.08 + 0.92 * (x / 99));
    context.fillRect(x, 0, 1, 1);
  }
  return canvas;
}
