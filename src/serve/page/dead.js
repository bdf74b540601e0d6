// Dead letters: what could not be applied and why; retried, with a corrected field if needed, or dropped.

import { get, part, post } from "./api.js";
import { $, ago, clock, count, el, name, pair, say, shown, twice } from "./dom.js";
import { List, button, put } from "./list.js";
import { link } from "./views.js";

const PAGE = 200;
const REFRESH_MS = 5000;

const words = (text) => text.replaceAll("_", " ");
/** `3 unknown type, 1 bad time`. */
const parts = (counts) => Object.entries(counts).map(([why, n]) => `${count(n)} ${words(why)}`).join(", ");

export class Dead {
  dirty = true;
  items = [];
  total = 0;
  reasons = new Set();

  constructor(app) {
    this.app = app;
    this.list = new List($("dead"), {
      label: "Dead letters, newest first",
      columns: ["Entry", "Reason", "Detail", "Written"],
      empty: () => this.failed ?? (this.which.reason || this.which.type ? "No dead letter matches this filter." : app.why("There is no dead letter.")),
      row: (cells, letter) => this.row(cells, letter),
    });
    $("dead-reason").addEventListener("change", () => this.load());
    $("dead-filter").addEventListener("change", () => this.load());
    $("dead-more").addEventListener("click", () => this.load(this.items.length + PAGE));
    twice($("dead-retry"), "Retry all", () => this.act("retry"), () => this.ask("retry"));
    twice($("dead-drop"), "Drop all", () => this.act("drop"), () => this.ask("drop"));
    setInterval(() => app.view === this && !document.hidden && !this.acting && this.load(Math.max(this.items.length, PAGE)), REFRESH_MS);
  }

  /** The selection by reason and type. */
  get which() {
    return { reason: $("dead-reason").value, type: $("dead-filter").value.trim() };
  }

  /** The same selection, for a request that retries or drops letters. */
  get order() {
    const chosen = Object.entries(this.which).filter(([, text]) => text);
    return chosen.length ? Object.fromEntries(chosen) : { all: true };
  }

  paint() {
    if (this.dirty) this.load();
    else this.list.draw();
    this.dirty = false;
  }

  async load(wanted = PAGE) {
    const turn = (this.turn = (this.turn ?? 0) + 1);
    const chosen = Object.entries(this.which).filter(([, text]) => text).map(([key, text]) => `&${key}=${part(text)}`).join("");
    let [items, cursor, total] = [[], "", 0];
    try {
      do {
        const page = await get(`dead?limit=${Math.min(wanted - items.length, 1000)}&cursor=${part(cursor)}${chosen}`);
        items = items.concat(page.items);
        [cursor, total] = [page.cursor, page.count];
      } while (cursor && items.length < wanted);
      this.failed = undefined;
    } catch (failed) {
      this.failed = `Dead letters cannot be shown: ${failed.message}.`;
    }
    if (turn !== this.turn) return;
    const known = new Map(this.items.map((letter) => [letter.id, letter]));
    Object.assign(this, { items: items.map((letter) => known.get(letter.id) ?? letter), total });
    for (const { reason } of items) this.#offer(reason);
    this.#tell();
    $("dead-more").hidden = !cursor;
    for (const id of ["dead-retry", "dead-drop"]) $(id).hidden = !this.app.rights.write || items.length === 0;
    this.list.set(this.items);
  }

  #tell() {
    $("dead-count").textContent = `${count(this.total)} in all`;
  }

  #offer(reason) {
    if (this.reasons.has(reason)) return;
    this.reasons.add(reason);
    $("dead-reason").append(el("option", { value: reason, textContent: words(reason) }));
  }

  row([entry, why, detail, written], letter) {
    const place = letter.index === null ? "" : ` [${letter.index}]`;
    button(entry, letter.id, () => link(letter.id, "letter", letter.entry_id + place));
    button(why, letter.id, () => el("span", { class: "kind mark", textContent: words(letter.reason) }));
    put(detail, shown(letter.detail), "soft");
    put(written, ago(letter.time_ms, this.app.now()), "time");
  }

  /** The question with the number of letters, before anything is done. */
  async ask(deed) {
    const found = await this.#walk(deed, { ...this.order, dry_run: true });
    if (deed === "drop") return `Drop ${count(found.matched)} for good?`;
    const again = Object.values(found.fail_again).reduce((sum, n) => sum + n, 0);
    return `Retry ${count(found.matched)}?${again ? ` ${count(again)} will fail again.` : ""}`;
  }

  async act(deed) {
    try {
      say(told(deed, await this.#walk(deed, this.order)));
    } finally {
      await this.load();
    }
  }

  /** Request after request until the end; each reply says where the next one continues. */
  async #walk(deed, order) {
    const all = { matched: 0, retried: 0, dropped: 0, gone: 0, left: {}, fail_again: {} };
    let cursor = "";
    this.acting = true;
    try {
      do {
        const answer = await post(`dead/${deed}`, { ...order, ...(cursor && { cursor }) });
        for (const key of ["matched", "retried", "dropped", "gone"]) all[key] += answer[key] ?? 0;
        for (const key of ["left", "fail_again"]) for (const [why, n] of Object.entries(answer[key] ?? {})) all[key][why] = (all[key][why] ?? 0) + n;
        cursor = answer.cursor;
        $("dead-count").textContent = `${count(all.matched)} examined…`;
      } while (cursor);
    } finally {
      this.acting = false;
      this.#tell();
    }
    return all;
  }

  /** A complete letter, for the panel. */
  async letter(id) {
    const letter = (await get(`dead/${part(id)}`)).items.find((one) => one.id === id);
    const text = (bytes) => bytes.base64 ?? bytes;
    const rows = letter.fields.flatMap((field) => pair(shown(text(field.name)), el("pre", { tabIndex: 0, textContent: text(field.value) })));
    return [
      el("p", { textContent: `${shown(letter.detail)}.`.replace(/\.\.$/, ".") }),
      el("dl", {}, ...pair("Reason", words(letter.reason)), ...pair("Entry", name(letter.entry_id)), ...(letter.index === null ? [] : pair("Index in the entry", count(letter.index))),
        ...pair("Stream", name(letter.stream)), ...pair("Written", `${clock(letter.time_ms)} (${ago(letter.time_ms, this.app.now())})`), ...(letter.retry_of ? pair("Retry of", name(letter.retry_of)) : [])),
      el("h3", { textContent: "The entry" }), rows.length ? el("dl", {}, ...rows) : el("p", { class: "soft", textContent: "Its fields were too large to keep." }),
      ...(this.app.rights.write ? [this.#mend(letter)] : []),
    ];
  }

  #mend({ id }) {
    const field = el("input", { name: "field", autocomplete: "off", spellcheck: false });
    const value = el("input", { name: "value", autocomplete: "off", spellcheck: false });
    const set = () => (field.value ? { set: { [field.value]: value.value } } : {});
    const done = async (deed, order) => {
      const answer = await post(`dead/${deed}`, { ids: [id], ...order });
      if (answer.gone || answer.retried || answer.dropped) this.app.panel.close();
      say(told(deed, answer));
      await this.load();
    };
    const sure = async () => {
      const { fail_again } = await post("dead/retry", { ids: [id], ...set(), dry_run: true });
      const [why] = Object.keys(fail_again);
      return why ? `It will fail again (${words(why)}). Retry?` : null;
    };
    const [retry, drop] = ["", "danger"].map((tone) => el("button", { type: "button", class: tone }));
    twice(retry, "Retry", () => done("retry", set()), sure);
    twice(drop, "Drop", () => done("drop", {}), () => "Drop for good?");
    return el("form", { class: "mend", onsubmit: (event) => event.preventDefault() },
      el("label", {}, "Set a field first", field), el("label", {}, "to", value), el("span", {}, retry, drop));
  }
}

/** The outcome of a retry or a drop, as text. */
function told(deed, { retried = 0, dropped = 0, gone = 0, left = {}, fail_again: fails = {} }) {
  const said = [deed === "retry" ? `${count(retried)} added to the stream again` : `${count(dropped)} dropped`];
  if (gone) said.push(`${count(gone)} removed by somebody else`);
  if (Object.keys(left).length) said.push(`left in place: ${parts(left)}`);
  if (Object.keys(fails).length) said.push(`failing again: ${parts(fails)}`);
  return `${said.join("; ")}.`;
}
