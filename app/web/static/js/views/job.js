// One job: how far it is while it runs, what it left when it has ended.

import { get, remove } from "../api.js";
import { announce, chip, h, replace } from "../dom.js";
import { follow } from "../events.js";
import { ago, moment, short, words } from "../format.js";
import { problemNote, problemText, tried } from "../problem.js";
import { reportPage } from "../report/page.js";
import { Progress } from "./progress.js";

export async function showJob(view, { id, signal }) {
  const path = `/v1/jobs/${encodeURIComponent(id)}`;
  const job = await get(path, { signal });
  const parts = {
    head: h("div", {}),
    body: h("div", { class: "stack" }),
    title: view.querySelector("h1"),
  };
  view.append(parts.head, parts.body);
  headed(job, parts);
  if (isFinal(job)) await ended(job, parts, signal);
  else await watched(job, parts, path, signal);
}

const isFinal = (job) => ["succeeded", "failed", "cancelled"].includes(job.status);

function headed(job, { head, title }) {
  const kind = job.kind === "evaluate" ? "evaluation" : words(job.kind);
  title.textContent = `${kind[0].toUpperCase()}${kind.slice(1)}${job.adapter ? ` of ${short(job.adapter)}` : ""}`;
  document.title = `${title.textContent} · adapter-safety`;
  replace(
    head,
    h(
      "div",
      { class: "head" },
      chip(job.status),
      h(
        "span",
        {},
        job.base_model && [h("code", {}, job.base_model), " → "],
        h("code", {}, job.chat_model),
      ),
      h(
        "span",
        { class: "quiet", title: moment(job.created_at) },
        `submitted ${ago(job.created_at)}`,
      ),
      job.attempts > 1 && h("span", { class: "quiet" }, `attempt ${job.attempts}`),
    ),
  );
}

async function watched(job, parts, path, signal) {
  const progress = new Progress(job);
  const trouble = h("div", {});
  const cancel = h(
    "button",
    { type: "button", class: "danger", disabled: job.cancel_requested },
    job.cancel_requested ? "Cancelling …" : "Cancel",
  );
  cancel.addEventListener("click", async () => {
    if (!(await tried(trouble, cancel, () => remove(path)))) return;
    cancel.disabled = true;
    cancel.textContent = "Cancelling …";
  });
  replace(
    parts.body,
    h(
      "section",
      { class: "panel stack", "aria-label": "Progress" },
      progress.element,
      trouble,
      h("div", { class: "row" }, cancel),
    ),
  );
  try {
    await follow(job.links.events, {
      signal,
      onEvent: (event) => {
        progress.take(event);
        restated(event, parts, job);
      },
      onState: progress.connection,
    });
  } catch (error) {
    if (!signal.aborted) replace(trouble, problemNote(error));
    return;
  }
  if (!signal.aborted) await finished(path, parts, signal);
}

function restated(event, parts, job) {
  if (event.name === "running" && job.status === "queued")
    headed(Object.assign(job, { status: "running" }), parts);
}

async function finished(path, parts, signal) {
  const job = await get(path, { signal });
  announce(`The job has ${job.status}.`);
  headed(job, parts);
  await ended(job, parts, signal);
}

async function ended(job, { head, body, title }, signal) {
  const hadFocus = body.contains(document.activeElement);
  if (job.status === "succeeded") {
    const report = await get(`${job.links.report}?format=json`, { signal });
    if (signal.aborted) return;
    if (report.verdict && report.verdict !== "scored")
      head.firstChild.children[0].after(chip(report.verdict, `verdict: ${report.verdict}`));
    replace(body, reportPage(job, report, signal));
  } else {
    replace(
      body,
      job.problem
        ? h("div", { class: "note bad", role: "alert" }, problemText(job.problem))
        : h(
            "p",
            { class: "note" },
            job.status === "cancelled"
              ? `Cancelled ${moment(job.finished_at)}. Nothing was written.`
              : `The job has ${job.status}.`,
          ),
    );
  }
  if (hadFocus) title.focus({ preventScroll: true });
}
