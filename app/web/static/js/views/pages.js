// A listing of the service's, page by page.

import { get, query } from "../api.js";
import { h, replace } from "../dom.js";
import { problemNote } from "../problem.js";

const PAGE = 50;

/** `row(item)` gives a list of cells, the first of which heads the row. On a phone the rows fold into
 * blocks; roles are said because a table that is drawn as blocks loses them. */
export function listing({ path, parameters = () => ({}), caption, titles, row, empty, signal }) {
  const body = h("tbody", { role: "rowgroup" });
  const none = h("p", { class: "empty", hidden: true }, empty);
  const more = h("button", { type: "button", hidden: true }, "Show more");
  let cursor = null;
  const take = async (after) => {
    const page = await get(query(path, { ...parameters(), limit: PAGE, cursor: after }), {
      signal,
    });
    const rows = page.items.map((item) =>
      h(
        "tr",
        { role: "row" },
        row(item).map((cell, i) =>
          h(
            i ? "td" : "th",
            { scope: i ? null : "row", role: i ? "cell" : "rowheader", "data-title": titles[i] },
            cell,
          ),
        ),
      ),
    );
    if (after) body.append(...rows);
    else replace(body, rows);
    cursor = page.next_cursor;
    more.hidden = !cursor;
    none.hidden = body.children.length > 0;
  };
  const shown = (after) =>
    take(after).catch((error) => {
      if (!signal.aborted) replace(none, problemNote(error)).hidden = false;
    });
  more.addEventListener("click", () => shown(cursor));
  const element = h(
    "div",
    {},
    h(
      "div",
      { class: "scroll" },
      h(
        "table",
        { class: "folds", role: "table" },
        h("caption", { class: "visually-hidden" }, caption),
        h(
          "thead",
          { role: "rowgroup" },
          h(
            "tr",
            { role: "row" },
            titles.map((title) => h("th", { scope: "col", role: "columnheader" }, title)),
          ),
        ),
        body,
      ),
    ),
    none,
    h("div", { class: "row end" }, more),
  );
  return { element, load: () => take(null), again: () => shown(null) };
}
