// How far a job is: modules done, bytes read of its models, the time it may still take.

import { framed, h, replace } from "../dom.js";
import { bytes, duration, words } from "../format.js";

const SPEAK_EVERY_MS = 10_000;
const SAY_AFTER = 3; // units, because the first ones tell little of the rest

export class Progress {
  constructor(job) {
    this.done = job.progress.done;
    this.total = job.progress.total;
    this.status = job.status;
    this.began = null;
    this.models = new Map();
    this.unit = "modules";
    this.last = "";
    this.bar = h("progress", { "aria-label": "Progress" });
    this.said = h("p");
    this.spoken = h("p", { class: "visually-hidden", role: "status" }); // now and then, not at each module
    this.spokenAt = -Infinity;
    this.latest = h("p", { class: "small quiet mono" });
    this.link = h("p", { class: "note warn", role: "status", hidden: true });
    this.downloads = h("div", { class: "stack tight" });
    this.element = h(
      "div",
      { class: "stack tight" },
      this.link,
      this.bar,
      this.said,
      this.spoken,
      this.latest,
      this.downloads,
    );
    this.draw = framed(() => this.drawn());
    this.connection = (state, seconds) => this.connected(state, seconds);
    this.draw();
  }

  take({ name, data }) {
    if (name === "running") this.status = "running";
    if (name === "queued") this.status = "queued";
    if (name === "download") this.models.set(data.model, data);
    if (data?.total) this.counted(name, data);
    this.draw();
  }

  counted(name, data) {
    this.began ??= { at: performance.now(), done: data.done };
    this.status = "running";
    this.done = data.done;
    this.total = data.total;
    this.unit = name === "module" ? "modules" : name === "batch" ? "batches" : `${words(name)}s`;
    if (data.module) this.last = data.module;
  }

  connected(state, seconds) {
    this.link.hidden = state === "live";
    this.link.textContent = `The connection is lost. Trying again in ${duration(Math.max(1, seconds))}; the job goes on without it.`;
  }

  drawn() {
    if (this.total) {
      this.bar.max = this.total;
      this.bar.value = this.done;
    }
    this.said.textContent = this.sentence();
    this.speak();
    this.latest.textContent = this.last;
    replace(this.downloads, [...this.models.values()].map(modelBar));
  }

  speak() {
    const now = performance.now();
    if (now - this.spokenAt < SPEAK_EVERY_MS) return;
    this.spokenAt = now;
    this.spoken.textContent = this.said.textContent;
  }

  sentence() {
    if (this.status === "queued") return "Queued: a worker takes it when it is free.";
    if (!this.total) return "Running: reading the models.";
    return `${this.done} of ${this.total} ${this.unit}${this.left()}`;
  }

  left() {
    const since = this.began ? this.done - this.began.done : 0;
    if (since < SAY_AFTER || this.done >= this.total) return "";
    const each = (performance.now() - this.began.at) / 1000 / since;
    const left = each * (this.total - this.done);
    return `, ${left < 1 ? "" : "about "}${duration(left)} left`;
  }
}

function modelBar({ model, done_bytes: done, total_bytes: total }) {
  return h(
    "div",
    {},
    h(
      "div",
      { class: "row apart small" },
      h("code", {}, model),
      h("span", {}, `${bytes(done)} of ${bytes(total)} read`),
    ),
    h("progress", { max: Math.max(1, total), value: done, "aria-label": `Bytes read of ${model}` }),
  );
}
