// A table of thousands of rows, of which only those in sight are in the document (all of them on paper).
// Rows stay the same elements while they are in sight, so that focus and selection stay too.

import { add, framed, h } from "./dom.js";

const ROW = 30; // --row in tokens.css
const BEYOND = 10;

/** columns: {key, title, width (rem), numeric, cell(row), sort(row), live}. */
export class LongTable {
  constructor({ caption, columns, rows, attributes = () => ({}), order = null, signal }) {
    Object.assign(this, {
      columns,
      all: rows,
      attributes,
      order,
      filter: () => true,
      elements: new Map(),
      worn: new WeakMap(),
      everything: false,
    });
    this.body = h("tbody");
    this.above = spacer(columns.length);
    this.below = spacer(columns.length);
    this.heads = columns.map((column) => this.head(column));
    this.table = h(
      "table",
      { "aria-rowcount": rows.length + 1 },
      h("caption", { class: "visually-hidden" }, caption),
      h("thead", {}, h("tr", { "aria-rowindex": 1 }, this.heads)),
      this.body,
    );
    this.element = h(
      "div",
      { class: "long", tabindex: "0", role: "region", "aria-label": caption },
      this.table,
    );
    this.table.style.minWidth = `${columns.reduce((sum, column) => sum + column.width, 0)}rem`;
    this.element.addEventListener(
      "scroll",
      framed(() => this.draw()),
      { passive: true },
    );
    new ResizeObserver(framed(() => this.draw())).observe(this.element);
    for (const [name, value] of [
      ["beforeprint", true],
      ["afterprint", false],
    ]) {
      addEventListener(
        name,
        () => {
          this.everything = value;
          this.draw();
        },
        { signal },
      );
    }
    this.arrange();
  }

  head(column) {
    const by = () => {
      this.order = { key: column.key, down: this.order?.key === column.key && !this.order.down };
      this.arrange();
    };
    const cell = h(
      "th",
      { scope: "col", class: column.numeric ? "number" : null },
      h("button", { type: "button", class: "plain", onclick: by }, column.title),
    );
    cell.style.width = `${column.width}rem`;
    return cell;
  }

  /** After the filter, the order or the rows have changed. */
  arrange() {
    this.rows = this.all.filter((row) => this.filter(row));
    const column = this.columns.find((each) => each.key === this.order?.key);
    if (column)
      this.rows.sort(comparing(column.sort ?? ((row) => row[column.key]), this.order.down));
    this.heads.forEach((head, i) => this.marked(head, this.columns[i]));
    this.elements.clear();
    this.body.replaceChildren(this.above, this.below);
    this.element.scrollTop = 0;
    this.draw();
  }

  marked(head, column) {
    if (this.order?.key === column.key)
      head.setAttribute("aria-sort", this.order.down ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  }

  draw() {
    const first = this.everything
      ? 0
      : Math.max(0, Math.floor(this.element.scrollTop / ROW) - BEYOND);
    const last = this.everything
      ? this.rows.length
      : Math.min(this.rows.length, first + Math.ceil(this.element.clientHeight / ROW) + 2 * BEYOND);
    for (const [at, element] of this.elements) {
      if (at < first || at >= last) {
        element.remove();
        this.elements.delete(at);
      }
    }
    let before = this.above;
    for (let at = first; at < last; at += 1) before = this.placed(at, before);
    this.above.hidden = first === 0;
    this.below.hidden = last >= this.rows.length;
    this.above.style.setProperty("--height", `${first * ROW}px`);
    this.below.style.setProperty("--height", `${(this.rows.length - last) * ROW}px`);
  }

  placed(at, before) {
    let element = this.elements.get(at);
    if (!element) {
      element = this.made(this.rows[at], at);
      this.elements.set(at, element);
      before.after(element);
    }
    return element;
  }

  made(row, at) {
    const cells = this.columns.map((column, i) =>
      add(
        h(i ? "td" : "th", { scope: i ? null : "row", class: column.numeric ? "number" : null }),
        [column.cell(row)],
      ),
    );
    const element = h("tr", { "aria-rowindex": at + 2 }, cells);
    this.columns.forEach((column, i) => column.meter && cells[i].classList.add("meter"));
    this.dressed(element, row);
    return element;
  }

  dressed(element, row) {
    const attributes = this.attributes(row);
    for (const [name, value] of Object.entries(attributes)) {
      if (name === "share") element.style.setProperty("--share", value);
      else element.setAttribute(name, value);
    }
    this.worn.set(element, JSON.stringify(attributes));
  }

  /** What rows say has changed, but not which rows there are: those whose attributes differ. */
  refresh() {
    for (const [at, element] of this.elements) {
      const row = this.rows[at];
      if (this.worn.get(element) === JSON.stringify(this.attributes(row))) continue;
      this.dressed(element, row);
      this.columns.forEach((column, i) => {
        if (column.live) element.cells[i].replaceChildren(column.cell(row));
      });
    }
  }

  reveal(wanted) {
    const at = this.rows.indexOf(wanted);
    if (at < 0) return;
    const top = at * ROW;
    const inSight =
      top >= this.element.scrollTop &&
      top + 2 * ROW <= this.element.scrollTop + this.element.clientHeight;
    if (!inSight) this.element.scrollTop = Math.max(0, top - this.element.clientHeight / 3);
  }
}

function spacer(columns) {
  return h(
    "tr",
    { class: "spacer", "aria-hidden": "true", hidden: true },
    h("td", { colspan: columns }),
  );
}

/** Nothing comes last, whichever way. */
function comparing(value, down) {
  const sign = down ? -1 : 1;
  return (one, other) => {
    const [a, b] = [value(one), value(other)];
    if (a === null || b === null) return (a === null) - (b === null);
    return (
      sign * (typeof a === "string" ? a.localeCompare(b, undefined, { numeric: true }) : a - b)
    );
  };
}
