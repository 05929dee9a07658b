// Two reports side by side, module by module.

import { get } from "../api.js";
import { chip, facts, field, h, replace, select } from "../dom.js";
import { ago, fixed, number, short, words } from "../format.js";
import { LongTable } from "../longtable.js";
import { problemNote } from "../problem.js";
import { selection } from "./jobs.js";

export async function showCompare(view, { query, signal }) {
  const result = h("div", { class: "stack" });
  const { items } = await get("/v1/jobs?status=succeeded&limit=100", { signal });
  const jobs = items.filter((job) => ["patch", "score"].includes(job.kind));
  const [one, other] = ["a", "b"].map((name) => picker(jobs, query.get(name)));
  const show = () => {
    const address = new URLSearchParams({ a: one.value, b: other.value });
    history.replaceState(null, "", `/compare?${address}`);
    return compared(one.value, other.value, result, signal);
  };
  for (const each of [one, other]) each.addEventListener("change", show);
  view.append(
    h(
      "div",
      { class: "stack after-title" },
      h("div", { class: "panel against" }, field("First", one), field("Second", other)),
      result,
    ),
  );
  await show();
}

function picker(jobs, wanted) {
  const said = (job) =>
    `${words(job.kind)} ${job.id.slice(0, 8)} · ${selection(job.method)} · ${job.chat_model} · ${ago(job.created_at)}`;
  const options = [["", "Choose a job …"], ...jobs.map((job) => [job.id, said(job)])];
  if (wanted && !jobs.some((job) => job.id === wanted)) options.push([wanted, `job ${wanted}`]);
  return select(options, wanted ?? "");
}

async function compared(one, other, result, signal) {
  if (!one || !other)
    return replace(
      result,
      h("p", { class: "panel empty" }, "Choose two jobs that have ended well: patches or scores."),
    );
  try {
    const reports = await Promise.all(
      [one, other].map((id) =>
        get(`/v1/jobs/${encodeURIComponent(id)}/report?format=json`, { signal }),
      ),
    );
    return replace(result, sides(reports, [one, other]), differences(reports, signal));
  } catch (error) {
    return signal.aborted ? null : replace(result, problemNote(error));
  }
}

function sides(reports, ids) {
  return h(
    "div",
    { class: "against" },
    reports.map((report, i) =>
      h(
        "section",
        { class: "panel", "aria-label": i ? "Second" : "First" },
        h("h2", {}, h("a", { href: `/jobs/${ids[i]}` }, `${report.kind} ${ids[i].slice(0, 8)}`)),
        facts([
          ["Adapter", h("code", {}, short(report.adapter.id))],
          [
            "Models",
            h("span", {}, report.base_model && `${report.base_model.id} → `, report.chat_model.id),
          ],
          [
            "Method",
            `${words(report.method.name)}${report.method.projector ? `, ${report.method.projector}` : ""}, ${selection(report.method)}`,
          ],
          ["Verdict", chip(report.verdict)],
          [
            "Decided",
            `${report.summary.projected} projected, ${report.summary.kept} kept, ${report.summary.skipped} not screened`,
          ],
          ["Mean cosine", number(report.summary.mean_cosine)],
          ["Median retained", number(report.summary.median_retained_energy)],
        ]),
      ),
    ),
  );
}

function differences([one, other], signal) {
  const rows = joined(one.layers, other.layers);
  const changed = rows.filter((row) => row.before !== row.after).length;
  const table = new LongTable({
    caption: "Modules of both reports",
    columns: COLUMNS,
    rows,
    signal,
    order: { key: "difference", down: true },
  });
  const only = h("input", { type: "checkbox", id: "only-changed" });
  only.addEventListener("change", () => {
    table.filter = only.checked ? (row) => row.before !== row.after : () => true;
    table.arrange();
  });
  return h(
    "section",
    { class: "panel flush", "aria-labelledby": "differences" },
    h(
      "header",
      { class: "row apart" },
      h("h2", { id: "differences" }, `${changed} of ${rows.length} modules decided otherwise`),
      h("div", { class: "row" }, only, h("label", { for: "only-changed" }, "Only those")),
    ),
    table.element,
  );
}

/** By full name, never by position. */
function joined(one, other) {
  const second = new Map(other.map((layer) => [layer.module, layer]));
  const names = [...new Set([...one, ...other].map((layer) => layer.module))];
  const first = new Map(one.map((layer) => [layer.module, layer]));
  return names.map((module, index) => {
    const [a, b] = [first.get(module), second.get(module)];
    const difference = a?.cosine == null || b?.cosine == null ? null : b.cosine - a.cosine;
    return {
      module,
      index,
      a,
      b,
      difference,
      before: a?.decision ?? "absent",
      after: b?.decision ?? "absent",
    };
  });
}

const side = (key, of, title) => ({
  key: `${of}-${key}`,
  title,
  width: 6.5,
  numeric: true,
  sort: (row) => row[of]?.[key] ?? null,
  cell: (row) => fixed(row[of]?.[key] ?? null),
});
const COLUMNS = [
  {
    key: "module",
    title: "module",
    width: 20,
    sort: (row) => row.index,
    cell: (row) => h("span", { title: row.module }, row.module),
  },
  side("cosine", "a", "cosine, first"),
  side("cosine", "b", "second"),
  {
    key: "difference",
    title: "difference",
    width: 7,
    numeric: true,
    sort: (row) => (row.difference === null ? null : Math.abs(row.difference)),
    cell: (row) => signed(row.difference),
  },
  { key: "before", title: "first", width: 7, cell: (row) => chip(row.before) },
  { key: "after", title: "second", width: 7, cell: (row) => chip(row.after) },
  side("retained_energy", "a", "retained, first"),
  side("retained_energy", "b", "second"),
];

const signed = (value) =>
  value === null ? "–" : value === 0 ? "0" : `${value > 0 ? "+" : "−"}${fixed(Math.abs(value))}`;
