// The adapter of a new job: dropped, chosen, taken from a hub, or one that is here already.

import { get, post, upload } from "../api.js";
import { announce, field, h, replace, select } from "../dom.js";
import { ago, bytes, plural, short } from "../format.js";
import { problemNote } from "../problem.js";
import { adapterAmong, chosen, dropped } from "./files.js";

/** Calls `onAdapter(adapter | null)`. */
export function adapterField(onAdapter) {
  const state = h("div", { class: "stack tight", "aria-live": "polite" });
  const take = (act) => taken(state, act, onAdapter);
  const send = (found) => take(async () => sent(state, adapterAmong(found)));
  return h(
    "fieldset",
    { class: "stack" },
    h("legend", {}, "Adapter"),
    dropZone(send),
    state,
    h(
      "details",
      {},
      h("summary", {}, "From a hub, or one that is here already"),
      h("div", { class: "stack" }, hubField(take), knownField(take)),
    ),
  );
}

async function taken(state, act, onAdapter) {
  onAdapter(null);
  try {
    const adapter = await act();
    replace(state, card(adapter));
    announce("The adapter is accepted.");
    onAdapter(adapter);
  } catch (error) {
    replace(
      state,
      problemNote(
        error.body ? error : { body: { title: "This is no adapter", detail: error.message } },
      ),
    );
  }
}

async function sent(state, { form, name }) {
  const bar = h("progress", { max: 1, value: 0, "aria-label": `Upload of ${name}` });
  const said = h("span", { class: "small quiet" }, "Sending …");
  replace(state, bar, said);
  return upload("/v1/adapters", form, (loaded, total) => {
    bar.value = total ? loaded / total : 0;
    said.textContent =
      loaded < total
        ? `${bytes(loaded)} of ${bytes(total)}`
        : `${bytes(total)} sent; the service looks at it`;
  });
}

function dropZone(send) {
  const files = picker("Choose files", { multiple: true }, send);
  const folder = picker("Choose a folder", { webkitdirectory: true }, send);
  const zone = h(
    "div",
    { class: "drop" },
    h("p", {}, h("b", {}, "Drop an adapter here"), ": its folder, its two files, or an archive"),
    h("div", { class: "row" }, files, folder),
  );
  zone.addEventListener("dragover", (event) => {
    event.preventDefault();
    zone.classList.add("over");
  });
  zone.addEventListener("dragleave", () => zone.classList.remove("over"));
  zone.addEventListener("drop", async (event) => {
    event.preventDefault();
    zone.classList.remove("over");
    send(await dropped(event.dataTransfer));
  });
  return zone;
}

function picker(text, props, send) {
  const input = h("input", { type: "file", hidden: true, "aria-label": text, ...props });
  input.addEventListener("change", () => {
    send(chosen(input.files));
    input.value = "";
  });
  return [h("button", { type: "button", onclick: () => input.click() }, text), input];
}

function hubField(take) {
  const input = h("input", {
    type: "text",
    placeholder: "org/adapter@main",
    autocomplete: "off",
    spellcheck: "false",
  });
  const ask = () => {
    const [repo_id, revision] = input.value.trim().split("@");
    if (repo_id)
      take(() => post("/v1/adapters", { hub: revision ? { repo_id, revision } : { repo_id } }));
  };
  input.addEventListener("keydown", (event) => {
    if (event.key === "Enter") {
      event.preventDefault();
      ask();
    }
  });
  return h(
    "div",
    { class: "stack tight" },
    field("Name on the hub", input, "org/name, and if you like @ and a branch, tag or commit"),
    h("div", {}, h("button", { type: "button", onclick: ask }, "Take it from there")),
  );
}

function knownField(take) {
  const choice = select([["", "Choose …"]], "");
  choice.addEventListener("change", () => {
    if (choice.value) take(() => get(`/v1/adapters/${encodeURIComponent(choice.value)}`));
  });
  choice.addEventListener(
    "focus",
    () => filled(choice).catch((error) => choice.append(h("option", { value: "" }, error.message))),
    { once: true },
  );
  return field("Uploaded before", choice);
}

async function filled(choice) {
  const { items } = await get("/v1/adapters?limit=100");
  for (const each of items) {
    const said = `${short(each.id)} · ${plural(each.modules, "module")} · ${bytes(each.size_bytes)} · ${ago(each.created_at)}`;
    choice.append(h("option", { value: each.id }, said));
  }
}

function card(adapter) {
  const ranks = [...new Set(adapter.modules.map((module) => module.rank))].sort(
    (one, other) => one - other,
  );
  const rank = ranks.length > 1 ? `ranks ${ranks[0]} to ${ranks.at(-1)}` : `rank ${ranks[0]}`;
  return h(
    "div",
    { class: "note good", id: "accepted" },
    h(
      "p",
      {},
      h("b", {}, "Accepted"),
      ` · ${plural(adapter.modules.length, "module")}, ${rank}, ${bytes(adapter.size_bytes)}`,
    ),
    adapter.base_model_name_or_path &&
      h("p", { class: "small" }, "trained on ", h("code", {}, adapter.base_model_name_or_path)),
    adapter.hub && h("p", { class: "small" }, "commit ", h("code", {}, adapter.hub.revision)),
    h("p", { class: "small quiet" }, h("code", {}, short(adapter.id))),
  );
}
