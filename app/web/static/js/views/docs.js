// The API, from its own description: what every route takes and gives.

import { get } from "../api.js";
import { h } from "../dom.js";
import { words } from "../format.js";

const METHODS = ["get", "post", "put", "delete"];
const DEEPEST = 6;

export async function showDocs(view, { signal }) {
  const document = await get("/openapi.json", { signal });
  const search = h("input", {
    type: "search",
    placeholder: "Search routes",
    "aria-label": "Search routes",
  });
  const groups = Object.entries(grouped(document)).map(([tag, routes]) =>
    group(tag, routes, document),
  );
  search.addEventListener("input", () => narrowed(groups, search.value.toLowerCase()));
  view.append(
    h(
      "div",
      { class: "stack after-title" },
      h(
        "p",
        {},
        quoted(document.info.description),
        " The description itself: ",
        h("a", { href: "/openapi.json" }, "/openapi.json"),
        ".",
      ),
      h("div", { class: "row" }, search),
      groups.map((each) => each.element),
    ),
  );
}

function grouped({ paths }) {
  const groups = {};
  for (const [path, operations] of Object.entries(paths)) {
    for (const method of METHODS.filter((name) => operations[name])) {
      const operation = operations[method];
      (groups[operation.tags?.[0] ?? "other"] ??= []).push({ path, method, operation });
    }
  }
  return groups;
}

function group(tag, routes, document) {
  const rows = routes.map((route) => ({
    text: `${route.method} ${route.path} ${route.operation.description ?? ""}`.toLowerCase(),
    element: routeDetails(route, document),
  }));
  const element = h(
    "section",
    { class: "panel", "aria-label": tag },
    h("h2", {}, words(tag)),
    rows.map((row) => row.element),
  );
  return { element, rows };
}

function narrowed(groups, wanted) {
  for (const { element, rows } of groups) {
    for (const row of rows) row.element.hidden = !row.text.includes(wanted);
    element.hidden = rows.every((row) => row.element.hidden);
  }
}

/** What stands between backticks as code. */
const quoted = (text) => text.split("`").map((part, i) => (i % 2 ? h("code", {}, part) : part));

/** Filled when it is opened first. */
function routeDetails({ path, method, operation }, document) {
  const [first, ...rest] = (operation.description ?? operation.summary ?? "").split("\n\n");
  const details = h(
    "details",
    { class: "route" },
    h(
      "summary",
      {},
      h("code", {}, h("b", {}, method.toUpperCase()), ` ${path}`),
      h("span", { class: "hint" }, quoted(first)),
    ),
  );
  const fill = () =>
    details.append(
      h(
        "div",
        { class: "stack tight" },
        rest.map((text) => h("p", {}, quoted(text))),
        parameters(operation),
        body(operation, document),
        answers(operation, document),
      ),
    );
  details.addEventListener("toggle", fill, { once: true });
  return details;
}

function parameters({ parameters: given = [] }) {
  if (!given.length) return null;
  const rows = given.map((each) =>
    h(
      "tr",
      {},
      h("th", { scope: "row" }, h("code", {}, each.name), each.required && " *"),
      h("td", {}, each.in),
      h("td", {}, quoted(each.description ?? typeName(each.schema ?? {}))),
    ),
  );
  return h(
    "div",
    { class: "scroll" },
    h(
      "table",
      {},
      h("caption", { class: "visually-hidden" }, "Parameters"),
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          ["Parameter", "In", "Meaning"].map((title) => h("th", { scope: "col" }, title)),
        ),
      ),
      h("tbody", {}, rows),
    ),
  );
}

function body({ requestBody }, document) {
  return Object.entries(requestBody?.content ?? {}).map(([media, { schema }]) =>
    shape(`Takes ${media}`, schema, document),
  );
}

function answers({ responses }, document) {
  return Object.entries(responses).flatMap(([status, answer]) => {
    const content = Object.entries(answer.content ?? {});
    if (!content.length) return [h("p", {}, h("b", {}, status), ` ${answer.description}`)];
    return content.map(([media, { schema }]) => shape(`${status} ${media}`, schema, document));
  });
}

function shape(title, schema, document) {
  if (!schema || !Object.keys(schema).length) return h("p", {}, h("b", {}, title));
  return h(
    "div",
    {},
    h("p", {}, h("b", {}, title)),
    h(
      "pre",
      { class: "note", tabindex: "0", role: "region", "aria-label": title },
      JSON.stringify(sketch(schema, document, 0), null, 2),
    ),
  );
}

/** A schema as an object of its fields' types, references followed. */
function sketch(schema, document, depth) {
  if (schema.$ref)
    return depth > DEEPEST ? "…" : sketch(referred(schema.$ref, document), document, depth + 1);
  const options = schema.anyOf ?? schema.oneOf;
  if (options) return choice(options, document, depth);
  if (schema.properties) {
    const required = new Set(schema.required ?? []);
    return Object.fromEntries(
      Object.entries(schema.properties).map(([name, each]) => [
        required.has(name) ? name : `${name}?`,
        sketch(each, document, depth + 1),
      ]),
    );
  }
  return schema.type === "array"
    ? [sketch(schema.items ?? {}, document, depth + 1)]
    : typeName(schema);
}

function choice(options, document, depth) {
  const known = options
    .filter((option) => option.type !== "null")
    .map((option) => sketch(option, document, depth + 1));
  if (known.every((each) => typeof each === "string"))
    return [...known, ...(known.length < options.length ? ["null"] : [])].join(" | ");
  return known.length === 1 ? known[0] : { "one of": known };
}

const referred = (reference, document) =>
  reference
    .slice(2)
    .split("/")
    .reduce((at, name) => at[name], document);

function typeName(schema) {
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((each) => JSON.stringify(each)).join(" | ");
  const options = schema.anyOf ?? schema.oneOf;
  if (options) return options.map(typeName).join(" | ");
  return schema.format ? `${schema.type} (${schema.format})` : String(schema.type ?? "any");
}
