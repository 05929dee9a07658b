// One module in full: the one under the pointer, or the one that was chosen.

import { chip, framed, h, replace } from "../dom.js";
import { number } from "../format.js";
import { pdstOf } from "./decide.js";

export function moduleDetail(decisions) {
  const body = h("div", { id: "module-detail", "aria-live": "polite" });
  let hovered = null;
  const draw = framed(() => shown(body, decisions, hovered ?? decisions.chosen));
  decisions.onChange(draw);
  draw();
  return {
    element: h("section", { class: "panel detail", "aria-label": "One module" }, body),
    hover(index) {
      if (index !== hovered) {
        hovered = index;
        draw();
      }
    },
  };
}

function shown(body, decisions, index) {
  if (index === null) {
    replace(
      body,
      h(
        "p",
        { class: "quiet" },
        "Point at a module in the map, or choose one in the table, to see all that is known of it.",
      ),
    );
    return;
  }
  const layer = decisions.layers[index];
  const decision = decisions.now[index];
  const same = decision === decisions.stored[index];
  replace(
    body,
    h("div", { class: "row apart" }, h("h3", {}, layer.module), chip(decision)),
    h(
      "dl",
      {},
      pairs(layer, decision).map(([name, value]) =>
        h("div", {}, h("dt", {}, name), h("dd", {}, value)),
      ),
    ),
    h(
      "p",
      { class: "small" },
      same
        ? layer.reason
        : `With this threshold it would be ${decision}; the job ${decisions.stored[index]} it. ${layer.note ?? ""}`,
    ),
  );
}

function pairs(layer, decision) {
  return [
    ["cosine", number(layer.cosine, 6)],
    ["retained energy", number(layer.retained_energy)],
    ["‖dW‖", number(layer.update_norm)],
    ["‖V‖", number(layer.alignment_norm)],
    ["pdst", number(pdstOf(layer, decision))],
    ["rank", layer.rank ?? "full"],
    ["shape", layer.shape.join(" × ")],
    ["V from", layer.alignment ?? "–"],
  ];
}
