// Every module, sortable and filtered.

import { chip, framed, h, select } from "../dom.js";
import { fixed, number, significant } from "../format.js";
import { LongTable } from "../longtable.js";
import { pdstOf } from "./decide.js";

export function layerTable(decisions, signal) {
  const rows = decisions.layers.map((layer, index) => ({ ...layer, index }));
  const decisionOf = (row) => decisions.now[row.index];
  const table = new LongTable({
    caption: "Every module",
    columns: columnsOf(decisions),
    rows,
    signal,
    attributes: (row) => ({
      "data-decision": decisionOf(row),
      class: row.index === decisions.chosen ? "chosen" : "",
      share: share(row.cosine),
    }),
  });
  const wanted = { text: "", decision: "" };
  const count = h("span", { class: "small quiet", role: "status" });
  const arrange = () => {
    table.filter = (row) =>
      matches(row, wanted.text) && (!wanted.decision || passes(decisions, row, wanted.decision));
    table.arrange();
    count.textContent =
      table.rows.length === rows.length
        ? `${rows.length} modules`
        : `${table.rows.length} of ${rows.length} modules`;
  };
  let chosen = null;
  decisions.onChange(
    framed(() => {
      if (wanted.decision) arrange();
      else table.refresh();
      if (decisions.chosen !== chosen && decisions.chosen !== null)
        table.reveal(rows[decisions.chosen]);
      chosen = decisions.chosen;
    }),
  );
  arrange();
  return h(
    "section",
    { class: "panel flush", "aria-labelledby": "layers-title" },
    h(
      "header",
      { class: "row apart" },
      h("div", { class: "row" }, h("h2", { id: "layers-title" }, "Modules"), count),
      filters(wanted, arrange),
    ),
    table.element,
  );
}

function filters(wanted, arrange) {
  const text = h("input", {
    type: "search",
    placeholder: "Filter by name",
    "aria-label": "Filter modules by name",
  });
  text.addEventListener("input", () => {
    wanted.text = text.value.toLowerCase();
    arrange();
  });
  const decision = select(
    [
      ["", "Any decision"],
      ["projected", "projected"],
      ["kept", "kept"],
      ["skipped", "skipped"],
      ["changed", "changed by the threshold"],
    ],
    "",
    { "aria-label": "Filter modules by decision" },
  );
  decision.addEventListener("change", () => {
    wanted.decision = decision.value;
    arrange();
  });
  return h("div", { class: "row no-print" }, text, decision);
}

const matches = (row, text) => !text || row.module.toLowerCase().includes(text);

function passes(decisions, row, wanted) {
  const decision = decisions.now[row.index];
  return wanted === "changed" ? decision !== decisions.stored[row.index] : decision === wanted;
}

/** Of a cell's width, for a cosine's bar. */
const share = (cosine) => `${Math.round(100 * Math.min(1, Math.max(0, cosine ?? 0)))}%`;

function columnsOf(decisions) {
  const plain = (key, title, width, cell) => ({
    key,
    title,
    width,
    numeric: true,
    cell: cell ?? ((row) => number(row[key])),
  });
  const pick = (row) =>
    h(
      "button",
      {
        type: "button",
        class: "plain",
        title: row.module,
        onclick: () => decisions.choose(row.index),
      },
      row.module,
    );
  const decision = (row) => decisions.now[row.index];
  const marked = (row) =>
    h(
      "span",
      {},
      chip(decision(row)),
      decision(row) !== decisions.stored[row.index] &&
        h("span", { class: "changed-mark", title: `was ${decisions.stored[row.index]}` }, " ●"),
    );
  const shares = decisions.layers.some((layer) => (layer.safety_share ?? null) !== null);
  return [
    { key: "module", title: "module", width: 20, sort: (row) => row.index, cell: pick },
    { ...plain("cosine", "cosine", 6, (row) => fixed(row.cosine)), meter: true },
    { key: "decision", title: "decision", width: 7.5, live: true, sort: decision, cell: marked },
    plain("retained_energy", "retained", 6, (row) => fixed(row.retained_energy)),
    plain("update_norm", "‖dW‖", 5.5, (row) => significant(row.update_norm)),
    plain("alignment_norm", "‖V‖", 5.5, (row) => significant(row.alignment_norm)),
    {
      ...plain("pdst", "pdst", 5.5, (row) => fixed(pdstOf(row, decision(row)))),
      live: true,
      sort: (row) => pdstOf(row, decision(row)),
    },
    ...(shares
      ? [plain("safety_share", "share in V_s", 6.5, (row) => fixed(row.safety_share ?? null))]
      : []),
    {
      key: "shape",
      title: "shape",
      width: 7.5,
      numeric: true,
      sort: (row) => row.shape[0] * row.shape[1],
      cell: (row) => row.shape.join(" × "),
    },
    plain("rank", "rank", 4, (row) => (row.rank === null ? "full" : String(row.rank))),
  ];
}
