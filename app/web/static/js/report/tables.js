// Short tables: what serving systems make of it, what was measured, and kinds without decisions.

import { chip, facts, h } from "../dom.js";
import { bytes, fixed, number, words } from "../format.js";

export function table(caption, columns, rows) {
  return h(
    "div",
    { class: "scroll" },
    h(
      "table",
      {},
      h("caption", { class: "visually-hidden" }, caption),
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          columns.map((title) => h("th", { scope: "col" }, title)),
        ),
      ),
      h(
        "tbody",
        {},
        rows.map((cells) =>
          h(
            "tr",
            {},
            cells.map((cell, i) => h(i ? "td" : "th", { scope: i ? null : "row" }, cell)),
          ),
        ),
      ),
    ),
  );
}

export function section(title, ...children) {
  return h(
    "section",
    { class: "panel" },
    h("h2", {}, title),
    h("div", { class: "stack" }, children),
  );
}

export function servingSection(report) {
  if (!report.serving?.length) return null;
  const rows = report.serving.map((each) => [
    each.system,
    chip(each.loads),
    each.reasons.join("; ") || "–",
    h("span", { class: "quiet small" }, `${each.source}, read ${each.read}`),
  ]);
  return section(
    "Serving",
    h(
      "p",
      { class: "hint" },
      "What each system's own source or documentation said on the day named. Nothing was tried on those systems.",
    ),
    table("Serving systems", ["System", "Loads", "Why", "Source"], rows),
  );
}

export function evaluationSection(report, title = "Measured") {
  if (!report?.table) return null;
  return section(
    title,
    (report.warnings ?? []).map((text) => h("p", { class: "note warn" }, text)),
    cells(report.table),
    report.comparisons.length > 0 &&
      h(
        "ul",
        {},
        report.comparisons.map((each) => h("li", {}, each.sentence)),
      ),
    h("p", { class: "hint" }, report.claim),
  );
}

export function cells(list, caption = "Each subject on each role's rows, with 95 % intervals") {
  const rows = list.map((cell) => [
    cell.subject,
    cell.role,
    cell.outcome ? `${cell.outcome} (${cell.judge})` : cell.judge,
    interval(cell.rate ?? cell.loss),
    cell.n,
    cell.given ? `${cell.given.count}/${cell.given.n}` : "–",
    cell.gibberish ?? "–",
    cell.drift ? number(cell.drift.first) : "–",
  ]);
  return table(
    caption,
    ["Subject", "Role", "Counted", "Rate or loss", "Rows", "Harm given", "No language", "Drift"],
    rows,
  );
}

export const interval = (value) =>
  value ? `${fixed(value.value, 3)} [${fixed(value.low, 3)}, ${fixed(value.high, 3)}]` : "–";

/** Of kinds whose report is a list of modules, or whatever else it may be. */
export function plainReport(report) {
  const { modules, warnings, schema_version, kind, claim, ...rest } = report;
  const flat = Object.entries(rest).filter(
    ([, value]) => value === null || typeof value !== "object",
  );
  const keys = modules?.length ? Object.keys(modules[0]) : [];
  const rows = (modules ?? []).slice(0, 500).map((each) => keys.map((key) => said(key, each[key])));
  return h(
    "div",
    { class: "stack" },
    flat.length > 0 &&
      section("Summary", facts(flat.map(([key, value]) => [words(key), said(key, value)]))),
    rows.length > 0 &&
      section(
        "Modules",
        table("Modules", keys.map(words), rows),
        modules.length > 500 &&
          h("p", { class: "hint" }, `The first 500 of ${modules.length}; the CSV has all.`),
      ),
    claim && h("p", { class: "hint" }, claim),
  );
}

function said(key, value) {
  if (Array.isArray(value)) return value.join(" × ");
  if (typeof value === "number") return key.endsWith("bytes") ? bytes(value) : number(value);
  return value === null ? "–" : typeof value === "object" ? JSON.stringify(value) : String(value);
}
