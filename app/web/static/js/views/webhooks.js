// Webhook endpoints, and what was sent to each.

import { get, post, remove } from "../api.js";
import { chip, facts, field, h, replace } from "../dom.js";
import { ago, moment, plural } from "../format.js";
import { problemNote, tried } from "../problem.js";
import { secretNote } from "./keys.js";
import { listing } from "./pages.js";

const EVENTS = ["job.succeeded", "job.failed", "verdict.issued"];

export async function showWebhooks(view, { signal }) {
  const shown = h("div", { class: "stack" });
  const load = async () => {
    const { items } = await get("/v1/webhooks?limit=200", { signal });
    replace(
      shown,
      items.length
        ? items.map((each) => endpoint(each, load, signal))
        : h(
            "p",
            { class: "panel empty" },
            "No webhooks yet. Make one, and this service calls it when jobs end.",
          ),
    );
  };
  await load();
  view.append(h("div", { class: "two after-title" }, maker(load), shown));
}

function maker(load) {
  const url = h("input", {
    type: "url",
    required: true,
    placeholder: "https://hooks.example.com/safety",
    autocomplete: "off",
  });
  const description = h("input", { type: "text", autocomplete: "off" });
  const boxes = EVENTS.map((name, i) =>
    h(
      "label",
      { class: "choice" },
      h("input", { type: "checkbox", value: name, checked: i < 2 }),
      h("b", {}, name),
    ),
  );
  const result = h("div", { "aria-live": "polite" });
  const button = h("button", { class: "primary" }, "Make a webhook");
  const form = h(
    "form",
    { class: "panel stack", "aria-labelledby": "make-hook" },
    h("h2", { id: "make-hook" }, "New webhook"),
    field("Address", url, "https, at a public address"),
    field("Description", description),
    h("fieldset", {}, h("legend", {}, "Events"), h("div", { class: "choices" }, boxes)),
    result,
    h("div", {}, button),
  );
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const events = [...form.querySelectorAll("input[type=checkbox]:checked")].map(
      (box) => box.value,
    );
    const made = await tried(result, button, () =>
      post("/v1/webhooks", { url: url.value, events, description: description.value }),
    );
    if (!made) return;
    replace(result, secretNote("Its secret, shown this once", made.secret));
    await load();
  });
  return form;
}

function endpoint(hook, load, signal) {
  const result = h("div", { class: "stack tight", "aria-live": "polite" });
  const act = (text, run, danger) => {
    const button = h("button", { type: "button", class: danger && "danger" }, text);
    button.addEventListener("click", () => tried(result, button, run));
    return button;
  };
  const list = listing({
    path: hook.links.deliveries,
    caption: `Deliveries to ${hook.url}`,
    signal,
    empty: "Nothing was sent yet.",
    titles: ["Event", "State", "Attempts", "Next", "Made", ""],
    row: (delivery) => line(delivery, result, () => list.load()),
  });
  const log = h("details", {}, h("summary", {}, "Deliveries"), list.element);
  log.addEventListener("toggle", () => {
    if (log.open) list.load().catch((error) => replace(result, problemNote(error)));
  });
  return h(
    "section",
    { class: "panel stack", "aria-label": hook.url },
    h(
      "div",
      { class: "row apart" },
      h("h2", {}, h("code", {}, hook.url)),
      chip(hook.disabled_at ? "failed" : "live", hook.disabled_at ? "disabled" : "live"),
    ),
    facts(
      [
        hook.description && ["Description", hook.description],
        ["Events", hook.events.join(", ")],
        hook.disabled_reason && ["Disabled", hook.disabled_reason],
        ["Made", moment(hook.created_at)],
      ].filter(Boolean),
    ),
    h(
      "div",
      { class: "row" },
      hook.disabled_at &&
        act("Enable", async () => {
          await post(`${hook.links.self}/enable`);
          await load();
        }),
      act("New secret", async () => {
        const made = await post(`${hook.links.self}/rotate`);
        replace(result, secretNote("The new secret, shown this once", made.secret));
      }),
      act(
        "Delete",
        async () => {
          if (confirm("Delete this webhook and its deliveries?")) {
            await remove(hook.links.self);
            await load();
          }
        },
        true,
      ),
    ),
    result,
    log,
  );
}

function line(delivery, result, reload) {
  const again = h(
    "button",
    { type: "button", "aria-label": `Send ${delivery.event_type} of ${delivery.event} again` },
    "Send again",
  );
  again.addEventListener("click", async () => {
    if (await tried(result, again, () => post(`${delivery.links.self}/redeliver`))) await reload();
  });
  const look = h(
    "button",
    { type: "button", "aria-label": `Look at ${delivery.event_type} of ${delivery.event}` },
    "Look",
  );
  look.addEventListener("click", async () => {
    const whole = await tried(result, look, () => get(delivery.links.self));
    if (whole) replace(result, whole.log.map(attempt), h("pre", { class: "note" }, whole.body));
  });
  return [
    delivery.event_type,
    chip(delivery.state),
    plural(delivery.attempts, "attempt"),
    delivery.due_at ? moment(delivery.due_at) : "–",
    ago(delivery.created_at),
    h("div", { class: "row" }, look, again),
  ];
}

const attempt = (each) =>
  h(
    "p",
    { class: "small" },
    `${moment(each.at)}, ${each.duration_ms} ms: ${each.status ?? each.error} ${each.response}`,
  );
