// A list of any length; only its visible rows are in the page.

import { el } from "./dom.js";

const ROW = 44;
const MORE = 4;

export class List {
  /** `columns` names the columns; `row` fills the cells of an element for a key. */
  constructor(holder, { label, columns, row, empty }) {
    Object.assign(this, { holder, row, empty, keys: [], rows: new Map(), free: [] });
    this.body = el("div", { class: "rows", attr: { role: "rowgroup" } });
    this.hint = el("p", { class: "empty", hidden: true });
    const names = columns.map((text) => el("span", { textContent: text, attr: { role: "columnheader" } }));
    const head = el("div", { class: "head", attr: { role: "rowgroup" } }, el("div", { class: "row", attr: { role: "row" } }, ...names));
    this.table = el("div", { attr: { role: "table", "aria-label": label } }, head, this.body);
    holder.replaceChildren(this.table, this.hint);
    holder.tabIndex = 0;
    holder.setAttribute("role", "group");
    holder.setAttribute("aria-label", label);
    this.columns = columns.length;
    holder.addEventListener("scroll", () => this.draw(), { passive: true });
    new ResizeObserver(() => this.draw()).observe(holder);
  }

  /** Shows these keys, in this order. */
  set(keys) {
    this.keys = keys;
    this.draw();
  }

  /** The keys that are visible now. */
  visible() {
    const first = Math.max(0, Math.floor(this.holder.scrollTop / ROW) - MORE);
    return [first, this.keys.slice(first, first + Math.ceil(this.holder.clientHeight / ROW) + 2 * MORE)];
  }

  draw() {
    if (!this.holder.offsetParent) return;
    const height = `${this.keys.length * ROW}px`;
    if (this.body.style.height !== height) {
      this.body.style.height = height;
      this.table.setAttribute("aria-rowcount", this.keys.length + 1);
    }
    this.hint.hidden = this.keys.length > 0;
    if (!this.hint.hidden) this.hint.textContent = this.empty();
    const [first, keys] = this.visible();
    const wanted = new Set(keys);
    for (const [key, row] of this.rows) {
      if (wanted.has(key)) continue;
      this.rows.delete(key);
      if (row.contains(document.activeElement)) this.holder.focus({ preventScroll: true });
      row.remove();
      this.free.push(row);
    }
    // Rows are kept in their visible order, which screen readers and the keyboard follow.
    keys.forEach((key, i) => {
      const row = this.#place(key, first + i);
      if (this.body.children[i] !== row) this.body.insertBefore(row, this.body.children[i] ?? null);
    });
  }

  #place(key, index) {
    let row = this.rows.get(key);
    if (!row) {
      row = this.free.pop() ?? this.#made();
      this.rows.set(key, row);
    }
    const top = `${index * ROW}px`;
    if (row.style.top !== top) {
      row.style.top = top;
      row.setAttribute("aria-rowindex", index + 2);
    }
    this.row(row.children, key, row);
    return row;
  }

  #made() {
    const cells = Array.from({ length: this.columns }, () => el("span", { attr: { role: "cell" } }));
    return el("div", { class: "row", attr: { role: "row" } }, ...cells);
  }
}

/** Sets a cell's text, if it differs. */
export function put(cell, text, className = "") {
  if (cell.dataset.text === text && cell.className === className) return;
  cell.dataset.text = text;
  cell.className = className;
  cell.textContent = text;
  cell.title = text;
}

/** Sets a cell's button, if it differs. */
export function button(cell, text, made) {
  if (cell.dataset.text === text) return;
  cell.dataset.text = text;
  cell.replaceChildren(made());
}
