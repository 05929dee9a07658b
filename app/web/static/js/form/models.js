// Base and chat model, with suggestions: pairs whose alignments are kept, earlier jobs, the adapter's own word.

import { get } from "../api.js";
import { field, h, newId } from "../dom.js";

export function modelFields() {
  const names = { base: new Set(), chat: new Set() };
  const base = input("e.g. meta-llama/Llama-2-7b-hf");
  const chat = input("e.g. meta-llama/Llama-2-7b-chat-hf");
  const lists = {
    base: h("datalist", { id: newId("models") }),
    chat: h("datalist", { id: newId("models") }),
  };
  base.setAttribute("list", lists.base.id);
  chat.setAttribute("list", lists.chat.id);
  const pairs = new Map();
  const suggest = (kind, name) => {
    if (!name || names[kind].has(name)) return;
    names[kind].add(name);
    lists[kind].append(h("option", { value: name }));
  };
  const pair = (one, other) => {
    suggest("base", one);
    suggest("chat", other);
    if (one && other) pairs.set(other, pairs.get(other) ?? one);
  };
  let given = ""; // what was filled in for the reader, and may be filled in anew
  chat.addEventListener("input", () => {
    if (base.value !== given) return;
    given = pairs.get(chat.value) ?? "";
    base.value = given;
  });
  return {
    element: h(
      "fieldset",
      { class: "stack tight" },
      h("legend", {}, "Models"),
      field(
        "Chat model",
        chat,
        "Aligned; the adapter was trained on it. An id the service knows, or org/name@revision.",
      ),
      field("Base model", base, "The same model before its alignment."),
      lists.base,
      lists.chat,
    ),
    values: () => ({ base_model: base.value.trim(), chat_model: chat.value.trim() }),
    learn: () => learnt(pair),
    hear: (adapter) => suggest("chat", adapter.base_model_name_or_path),
  };
}

const input = (placeholder) =>
  h("input", {
    type: "text",
    required: true,
    placeholder,
    autocomplete: "off",
    spellcheck: "false",
  });

async function learnt(pair) {
  const [alignments, jobs] = await Promise.allSettled([
    get("/v1/alignments?limit=50"),
    get("/v1/jobs?limit=50"),
  ]);
  for (const each of alignments.value?.items ?? []) pair(each.base_model.id, each.chat_model.id);
  for (const each of jobs.value?.items ?? []) pair(each.base_model, each.chat_model);
}
