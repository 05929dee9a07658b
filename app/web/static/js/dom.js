// Elements without markup: every value becomes text or an attribute, never HTML.

const SVG = "http://www.w3.org/2000/svg";

export function h(tag, props, ...children) {
  return filled(document.createElement(tag), props, children);
}

export function svg(tag, props, ...children) {
  return filled(document.createElementNS(SVG, tag), props, children);
}

function filled(element, props, children) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name in PROPERTIES) element[name] = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  add(element, children);
  return element;
}

const PROPERTIES = { value: 1, checked: 1, indeterminate: 1, disabled: 1, multiple: 1 };

export function add(element, children) {
  for (const child of [children].flat(9)) {
    if (child !== null && child !== undefined && child !== false) element.append(child);
  }
  return element;
}

export function replace(element, ...children) {
  element.replaceChildren();
  return add(element, children);
}

let nextId = 0;
export const newId = (prefix) => `${prefix}-${(nextId += 1)}`;

/** A label above its control, with a hint that the control is described by. */
export function field(label, control, hint) {
  control.id ||= newId("field");
  const hintId = hint ? `${control.id}-hint` : null;
  if (hintId) control.setAttribute("aria-describedby", hintId);
  return h(
    "div",
    { class: "field" },
    h("label", { for: control.id }, label),
    control,
    hint && h("span", { class: "hint", id: hintId }, hint),
  );
}

export function select(options, value, props) {
  return h(
    "select",
    props,
    options.map(([key, text]) => h("option", { value: key, selected: key === value }, text)),
  );
}

export function facts(pairs) {
  return h(
    "dl",
    { class: "facts" },
    pairs
      .filter((pair) => pair && pair[1] !== null && pair[1] !== undefined)
      .map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]),
  );
}

export function chip(name, text = name) {
  return h("span", { class: `chip ${String(name).replace(/[^a-z-]/g, "")}` }, text);
}

/** Said once by a screen reader, wherever the focus is. */
export function announce(text) {
  document.getElementById("announcer").textContent = text;
}

/** At most once a frame, with the last arguments. */
export function framed(act) {
  let waiting = null;
  return (...given) => {
    if (!waiting)
      requestAnimationFrame(() => {
        const now = waiting;
        waiting = null;
        act(...now);
      });
    waiting = given;
  };
}

export function debounced(act, ms) {
  let timer = 0;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => act(...given), ms);
  };
}
