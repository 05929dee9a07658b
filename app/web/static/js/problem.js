// What went wrong, in the service's own words.

import { facts, h } from "./dom.js";

const SAID = new Set(["type", "title", "status", "detail", "errors"]);

export function problemNote(error) {
  const body = error.body ?? {
    title: "The page has a fault",
    detail: String(error.message ?? error),
  };
  return h("div", { class: "note bad", role: "alert" }, problemText(body));
}

export function problemText(body) {
  const rest = Object.entries(body).filter(([name]) => !SAID.has(name));
  return [
    h("h2", {}, body.title ?? "Something went wrong"),
    body.detail && h("p", {}, body.detail),
    body.errors?.length > 1 &&
      h(
        "ul",
        {},
        body.errors.slice(1).map((each) => h("li", {}, `${each.field}: ${each.reason}`)),
      ),
    rest.length > 0 &&
      facts(rest.map(([name, value]) => [name.replaceAll("_", " "), h("code", {}, said(value))])),
  ];
}

const said = (value) => (typeof value === "string" ? value : JSON.stringify(value));

/** Runs an act of a button; shows what it could not do in `place`. */
export async function tried(place, button, act) {
  place.replaceChildren();
  button.disabled = true;
  try {
    return await act();
  } catch (error) {
    place.replaceChildren(problemNote(error));
    return null;
  } finally {
    button.disabled = false;
  }
}
