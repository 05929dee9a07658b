// What is done to the modules, and to which: one line says what each choice means.

import { field, h, newId } from "../dom.js";

const METHODS = [
  ["safe_lora", "Safe LoRA", "projects the update: B becomes C B"],
  ["scale", "Scale", "a baseline: B is multiplied by a factor"],
  ["prune", "Prune", "a baseline: B becomes zero"],
];
const PROJECTORS = [
  [
    "approximate",
    "Approximate",
    "V Vᵀ / ‖V‖, as the authors ship it; mostly shrinks what it touches",
  ],
  ["exact", "Exact", "the paper's formula; the identity wherever V has full row rank"],
  ["subspace", "Subspace", "onto the directions that hold most of what alignment changed"],
  ["complement", "Complement", "anywhere but through those directions"],
];
const SELECTIONS = [
  [
    "threshold",
    "Threshold",
    "modules with a cosine at or below",
    { value: 0.5, min: -1, max: 1, step: 0.01 },
  ],
  ["count", "Count", "so many modules, smallest cosine first", { value: 10, min: 0, step: 1 }],
  [
    "fraction",
    "Fraction",
    "at least this share of the modules",
    { value: 0.5, min: 0, max: 1, step: 0.05 },
  ],
  ["all", "All", "every module that has a cosine", null],
];

export function methodFields() {
  const energy = h("input", {
    type: "number",
    value: 0.9,
    min: 0.01,
    max: 1,
    step: "any",
    required: true,
  });
  const factor = h("input", {
    type: "number",
    value: 0.5,
    min: 0,
    max: 1,
    step: "any",
    required: true,
  });
  const energyField = field("Energy", energy, "the share of ‖V‖² that the directions hold");
  const factorField = field("Factor", factor, "0 is prune, 1 changes nothing");
  const method = choices("Method", METHODS, "safe_lora", (name) => {
    factorField.hidden = factor.disabled = name !== "scale";
  });
  const projector = choices("Projector", PROJECTORS, "approximate", (name) => {
    energyField.hidden = energy.disabled = !["subspace", "complement"].includes(name);
  });
  const selection = choices("Which modules", SELECTIONS, "threshold");
  return {
    element: h(
      "div",
      { class: "stack" },
      method.element,
      factorField,
      projector.element,
      energyField,
      selection.element,
    ),
    value: () => ({
      name: method.value(),
      projector: projector.value(),
      ...(energy.disabled ? {} : { energy: Number(energy.value) }),
      ...(factor.disabled ? {} : { factor: Number(factor.value) }),
      select: {
        by: selection.value(),
        ...(selection.value() === "all" ? {} : { value: selection.number() }),
      },
    }),
  };
}

/** A group of radio buttons, some with a number of their own. */
function choices(legend, options, first, onChange = () => {}) {
  const name = newId("choice");
  const numbers = {};
  const rows = options.map(([value, title, hint, number]) => {
    const radio = h("input", { type: "radio", name, value, checked: value === first });
    if (number)
      numbers[value] = h("input", {
        type: "number",
        "aria-label": title,
        required: true,
        ...number,
      });
    return h(
      "label",
      { class: "choice" },
      radio,
      h("span", {}, h("b", {}, title), h("span", { class: "hint" }, hint)),
      numbers[value],
    );
  });
  const element = h("fieldset", {}, h("legend", {}, legend), h("div", { class: "choices" }, rows));
  const value = () => element.querySelector("input[type=radio]:checked").value;
  const settle = () => {
    for (const [key, input] of Object.entries(numbers)) input.disabled = key !== value();
    onChange(value());
  };
  element.addEventListener("change", settle);
  settle();
  return { element, value, number: () => Number(numbers[value()].value) };
}
