// Jobs, newest first, with filters that the service applies and a search in what is shown.

import { get, query } from "../api.js";
import { chip, h, replace, select } from "../dom.js";
import { ago, moment, plural, words } from "../format.js";
import { problemNote } from "../problem.js";

const STATUSES = ["queued", "running", "succeeded", "failed", "cancelled"];
const KINDS = [
  "patch",
  "score",
  "evaluate",
  "frontier",
  "alignment",
  "safety_module",
  "salora_init",
  "salora_train",
  "salora_export",
];
const PAGE = 25;
const AGAIN_MS = 5000;

export function jobList(signal) {
  const state = { jobs: [], cursor: null };
  const body = h("tbody");
  const more = h("button", { type: "button", hidden: true }, "Show more");
  const said = h("p", { class: "empty", hidden: true });
  const status = filter("Status", "Any status", STATUSES);
  const kind = filter("Kind", "Any kind", KINDS);
  const search = h("input", {
    type: "search",
    placeholder: "Search in this list",
    "aria-label": "Search in this list",
  });
  const asked = (cursor, limit) =>
    get(query("/v1/jobs", { status: status.value, kind: kind.value, limit, cursor }), { signal });
  const draw = () => drawn(state, body, said, more, search.value);
  const failed = (error) => {
    if (!signal.aborted) replace(said, problemNote(error)).hidden = false;
  };

  async function load() {
    try {
      take(await asked(null, PAGE), []);
    } catch (error) {
      failed(error);
    }
  }
  function take(page, before) {
    const known = new Set(before.map((job) => job.id));
    state.jobs = [...before, ...page.items.filter((job) => !known.has(job.id))];
    state.cursor = page.next_cursor;
    draw();
  }
  async function refresh() {
    if (!state.jobs.some((job) => !final(job)) || document.hidden || state.jobs.length > 200)
      return;
    const page = await asked(null, Math.max(PAGE, state.jobs.length)).catch(() => null);
    if (page && !signal.aborted) take(page, []);
  }
  more.addEventListener("click", () =>
    asked(state.cursor, PAGE).then((page) => take(page, state.jobs), failed),
  );
  for (const each of [status, kind]) each.addEventListener("change", load);
  search.addEventListener("input", draw);
  const timer = setInterval(refresh, AGAIN_MS);
  signal.addEventListener("abort", () => clearInterval(timer));
  return { element: panel([search, status, kind], body, said, more), load };
}

const final = (job) => ["succeeded", "failed", "cancelled"].includes(job.status);

const filter = (label, any, names) =>
  select([["", any], ...names.map((name) => [name, words(name)])], "", { "aria-label": label });

function panel(filters, body, said, more) {
  const titles = ["Job", "Status", "Selection", "Modules", "Started"];
  return h(
    "section",
    { class: "panel flush", "aria-labelledby": "jobs-title" },
    h(
      "header",
      { class: "row apart bar" },
      h("h2", { id: "jobs-title" }, "Jobs"),
      h("div", { class: "row" }, filters),
    ),
    h(
      "div",
      { class: "scroll" },
      h(
        "table",
        { class: "jobs" },
        h("caption", { class: "visually-hidden" }, "Jobs, newest first"),
        h(
          "thead",
          {},
          h(
            "tr",
            {},
            titles.map((title, i) =>
              h("th", { scope: "col", class: i === 2 || i === 3 ? "optional" : null }, title),
            ),
          ),
        ),
        body,
      ),
    ),
    said,
    h("div", { class: "row bar end" }, more),
  );
}

function drawn(state, body, said, more, wanted) {
  const words = wanted.toLowerCase().split(/\s+/).filter(Boolean);
  const shown = state.jobs.filter((job) => words.every((word) => text(job).includes(word)));
  const focused = body.contains(document.activeElement)
    ? document.activeElement.getAttribute("href")
    : null;
  replace(body, shown.map(line));
  if (focused)
    [...body.querySelectorAll("a")].find((link) => link.getAttribute("href") === focused)?.focus();
  more.hidden = !state.cursor;
  more.parentElement.hidden = more.hidden;
  said.hidden = shown.length > 0;
  said.textContent = state.jobs.length
    ? "None of those shown here."
    : "No jobs yet. Drop an adapter to start the first.";
}

const text = (job) =>
  [job.id, job.kind, job.status, job.adapter, job.base_model, job.chat_model]
    .join(" ")
    .toLowerCase();

function line(job) {
  return h(
    "tr",
    {},
    h(
      "th",
      { scope: "row" },
      h("a", { href: `/jobs/${job.id}` }, words(job.kind), " ", h("code", {}, job.id.slice(0, 8))),
      h("span", { class: "models" }, job.base_model && `${job.base_model} → `, job.chat_model),
    ),
    h("td", {}, chip(job.status)),
    h("td", { class: "optional" }, selection(job.method)),
    h(
      "td",
      { class: "optional nowrap" },
      job.progress.total ? `${job.progress.done}/${job.progress.total}` : "–",
    ),
    h(
      "td",
      { class: "nowrap" },
      h("time", { datetime: job.created_at, title: moment(job.created_at) }, ago(job.created_at)),
    ),
  );
}

export function selection(method) {
  if (!method?.select) return "–";
  const { by, value } = method.select;
  return by === "all" ? "all modules" : by === "count" ? plural(value, "module") : `${by} ${value}`;
}
