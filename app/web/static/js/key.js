// The API key: asked for when the service wants one, kept until the tab is closed.

import { h } from "./dom.js";

const NAME = "adapter-safety-key";
let asking = null;

export const keptKey = () => sessionStorage.getItem(NAME);

export function showWhetherKept() {
  document.getElementById("forget-key").hidden = !keptKey();
}

export function forgetKey() {
  sessionStorage.removeItem(NAME);
  showWhetherKept();
}

/** Whether there is a key now that is not `tried`. Several that ask at once share one dialog. */
export async function askForKey(problem, tried) {
  if (keptKey() !== tried) return true;
  asking ??= asked(problem, tried !== null).finally(() => {
    asking = null;
  });
  return asking;
}

function asked(problem, wasWrong) {
  const input = h("input", {
    id: "api-key",
    type: "password",
    autocomplete: "off",
    spellcheck: "false",
    required: true,
  });
  const dialog = h(
    "dialog",
    { "aria-labelledby": "key-title" },
    h(
      "form",
      { method: "dialog", class: "stack" },
      h("h2", { id: "key-title" }, problem.body.title ?? "An API key is needed"),
      h(
        "p",
        {},
        wasWrong
          ? "The key that was given opens nothing here."
          : "This service wants to know who asks.",
      ),
      h(
        "div",
        { class: "field" },
        h("label", { for: "api-key" }, "API key"),
        input,
        h(
          "span",
          { class: "hint" },
          "Kept in this tab until it is closed. adapter-safety keys create makes one.",
        ),
      ),
      h(
        "div",
        { class: "row end" },
        h("button", { type: "button", onclick: () => dialog.close("") }, "Not now"),
        h("button", { class: "primary", value: "use" }, "Use this key"),
      ),
    ),
  );
  dialog.querySelector("form").addEventListener("submit", (event) => {
    event.preventDefault();
    dialog.close(input.value.trim());
  });
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) =>
    dialog.addEventListener("close", () => {
      dialog.remove();
      if (dialog.returnValue) sessionStorage.setItem(NAME, dialog.returnValue);
      showWhetherKept();
      resolve(Boolean(dialog.returnValue));
    }),
  );
}
