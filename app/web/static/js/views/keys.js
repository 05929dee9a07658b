// API keys of the caller's tenant, for its administrators.

import { post } from "../api.js";
import { chip, field, h, replace } from "../dom.js";
import { ago } from "../format.js";
import { tried } from "../problem.js";
import { listing } from "./pages.js";

const SCOPES = [
  ["submit", "upload, submit, cancel"],
  ["read", "look and download"],
  ["transcripts", "download prompts with their answers"],
  ["admin", "all of it, webhooks and keys"],
];

export async function showKeys(view, { signal }) {
  const trouble = h("div", {});
  const list = listing({
    path: "/v1/keys",
    caption: "API keys, newest first",
    titles: ["Key", "Scopes", "State", "Last used", "Made", ""],
    signal,
    empty: "No keys yet.",
    row: (key) => line(key, trouble, () => list.load()),
  });
  await list.load();
  view.append(
    h(
      "div",
      { class: "two after-title" },
      maker(() => list.load()),
      h(
        "section",
        { class: "panel", "aria-labelledby": "keys-title" },
        h("h2", { id: "keys-title" }, "Keys"),
        trouble,
        list.element,
      ),
    ),
  );
}

function maker(onMade) {
  const name = h("input", { type: "text", required: true, maxlength: 100, autocomplete: "off" });
  const boxes = SCOPES.map(([scope, hint], i) =>
    h(
      "label",
      { class: "choice" },
      h("input", { type: "checkbox", value: scope, checked: i < 2 }),
      h("span", {}, h("b", {}, scope), h("span", { class: "hint" }, hint)),
    ),
  );
  const result = h("div", { "aria-live": "polite" });
  const button = h("button", { class: "primary" }, "Make a key");
  const form = h(
    "form",
    { class: "panel stack", "aria-labelledby": "make-key" },
    h("h2", { id: "make-key" }, "New key"),
    field("Name", name, "whose it is"),
    h("fieldset", {}, h("legend", {}, "Scopes"), h("div", { class: "choices" }, boxes)),
    result,
    h("div", {}, button),
  );
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const scopes = [...form.querySelectorAll("input[type=checkbox]:checked")].map(
      (box) => box.value,
    );
    const made = await tried(result, button, () => post("/v1/keys", { name: name.value, scopes }));
    if (!made) return;
    replace(result, secretNote("The key, shown this once", made.secret));
    name.value = "";
    await onMade();
  });
  return form;
}

export function secretNote(title, secret) {
  const copy = h(
    "button",
    {
      type: "button",
      onclick: () =>
        navigator.clipboard?.writeText(secret).then(() => {
          copy.textContent = "Copied";
        }),
    },
    "Copy",
  );
  return h(
    "div",
    { class: "note good stack tight" },
    h("h3", {}, title),
    h("code", { class: "secret" }, secret),
    h("div", {}, copy),
  );
}

function line(key, trouble, reload) {
  const revoke = h(
    "button",
    { type: "button", class: "danger", "aria-label": `Revoke ${key.name}` },
    "Revoke",
  );
  revoke.addEventListener("click", async () => {
    if (!confirm(`Revoke "${key.name}"? Whoever uses it is refused from now on.`)) return;
    if (await tried(trouble, revoke, () => post(`/v1/keys/${key.id}/revoke`))) await reload();
  });
  return [
    [key.name, h("div", { class: "small quiet" }, h("code", {}, key.id))],
    key.scopes.join(", "),
    chip(key.revoked_at ? "revoked" : "live"),
    key.last_used_at ? ago(key.last_used_at) : "never",
    ago(key.created_at),
    key.revoked_at ? "" : revoke,
  ];
}
