// A new job on one side, what is under way on the other.

import { post, token } from "../api.js";
import { h, select } from "../dom.js";
import { adapterField } from "../form/adapter.js";
import { methodFields } from "../form/method.js";
import { modelFields } from "../form/models.js";
import { tried } from "../problem.js";
import { go } from "../router.js";
import { jobList } from "./jobs.js";

export async function showHome(view, { signal }) {
  const models = modelFields();
  const jobs = jobList(signal);
  view.append(h("div", { class: "two after-title" }, newJob(models), jobs.element));
  await jobs.load();
  await models.learn();
}

function newJob(models) {
  let adapter = null;
  let sent = { text: "", key: "" };
  const method = methodFields();
  const trouble = h("div", {});
  const kind = select(
    [
      ["patch", "Patch: change the adapter"],
      ["score", "Score: the report alone"],
    ],
    "patch",
    { "aria-label": "What to do" },
  );
  const button = h("button", { class: "primary", disabled: true }, "Start");
  const hint = h("p", { class: "hint" }, "An adapter is needed first.");
  const form = h(
    "form",
    { class: "panel stack", "aria-labelledby": "new-job" },
    h("h2", { id: "new-job" }, "New job"),
    adapterField((found) => {
      adapter = found;
      button.disabled = !found;
      hint.hidden = Boolean(found);
      if (found) models.hear(found);
    }),
    models.element,
    method.element,
    trouble,
    h("div", { class: "row" }, kind, button, hint),
  );
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const body = {
      kind: kind.value,
      adapter: adapter.id,
      ...models.values(),
      method: method.value(),
    };
    const text = JSON.stringify(body);
    if (sent.text !== text) sent = { text, key: token() }; // pressed twice, or after a lost answer: one job
    const job = await tried(trouble, button, () =>
      post("/v1/jobs", body, { "Idempotency-Key": sent.key }),
    );
    if (job) go(`/jobs/${job.id}`);
  });
  return form;
}
