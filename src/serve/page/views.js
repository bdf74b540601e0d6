// The lists: online users, changes, sessions, documents, views.

import { get, post } from "./api.js";
import { $, ago, clock, count, device, el, name, shown } from "./dom.js";
import { List, button, put } from "./list.js";
import { lastSeen, newest } from "./model.js";

/** How often the visible rows are updated with what changes do not contain. */
const REFRESH_MS = 5000;

const KINDS = {
  online: ["came online", "in"], offline: ["went offline", "out"], login: ["logged in", "in"], logout: ["logged out", "out"],
  session_started: ["session began", "in"], session_ended: ["session ended", "out"], session_expired: ["session expired", "out"],
  document_joined: ["joined", "in"], document_left: ["left", "out"], threshold_reached: ["threshold reached", "mark"],
  threshold_left: ["threshold left", "out"],
};

export const has = (needle, ...texts) => texts.some((text) => String(text ?? "").toLowerCase().includes(needle));

/** A list with a filter. Its keys are selected again when something has changed. */
export class View {
  /** Whether the feed of changes updates it. */
  isFed = true;
  dirty = true;
  filter = "";

  constructor(id, app) {
    Object.assign(this, { id, app, model: app.model });
    $(`${id}-filter`)?.addEventListener("input", (event) => {
      this.filter = event.target.value.trim().toLowerCase();
      $(id).scrollTop = 0;
      this.dirty = true;
      app.paint();
    });
  }

  paint() {
    if (this.dirty) this.list.set(this.keys());
    else this.list.draw();
    this.dirty = false;
  }
}

export class Online extends View {
  constructor(app) {
    super("online", app);
    this.list = new List($("online"), {
      label: "Users who are online",
      columns: ["User", "Page", "Address", "Seen"],
      empty: () => (this.filter ? "Nobody online matches this filter." : app.why("Nobody is online.")),
      row: (cells, user) => this.row(cells, user),
    });
    setInterval(() => this.refresh(), REFRESH_MS);
  }

  keys() {
    const { names } = this.model.order.people;
    if (!this.filter) return names;
    return names.filter((user) => {
      const addresses = [...this.model.people.get(user).addresses];
      return has(this.filter, user) || addresses.some(([ip, { page }]) => has(this.filter, ip, page));
    });
  }

  row([user, page, address, seen], key) {
    const person = this.model.people.get(key);
    if (!person) return;
    const last = newest(person);
    const more = person.addresses.size > 1 ? ` +${person.addresses.size - 1}` : "";
    button(user, key, () => link(key, "user"));
    put(page, last.page === undefined ? "…" : shown(last.page || "–"));
    put(address, shown(last.ip || "–") + more, "soft");
    put(seen, ago(lastSeen(person), this.app.now()), "time");
  }

  /** Requests pages and times of the visible rows. Names of users are in the body, so that they stay out of URLs. */
  async refresh() {
    if (this.app.view !== this || document.hidden || !this.app.live) return;
    const users = this.list.visible()[1].slice(0, 100);
    if (users.length === 0) return;
    try {
      for (const person of (await post("users/query", { users })).users) this.model.update(person);
      this.app.paint();
    } catch {
      // The health view says what is wrong.
    }
  }
}

export class Changes extends View {
  paused = null;

  constructor(app) {
    super("changes", app);
    this.list = new List($("changes"), {
      label: "Changes, newest first",
      columns: ["Time", "What", "Who and where", "Count"],
      empty: () => (this.filter ? "No change matches this filter." : app.why("Nothing has changed since this page was opened.")),
      row: (cells, change, row) => this.row(cells, change, row),
    });
    $("pause").addEventListener("click", () => {
      this.paused = this.paused ? null : { changes: this.model.changes.slice(), seen: this.model.seen };
      $("pause").setAttribute("aria-pressed", String(this.paused !== null));
      this.dirty = true;
      app.paint();
    });
  }

  keys() {
    const held = this.paused ? this.model.seen - this.paused.seen : 0;
    $("pause").textContent = this.paused ? `Resume (${count(held)} new)` : "Pause";
    const all = (this.paused?.changes ?? this.model.changes).slice(-500).reverse();
    if (!this.filter) return all;
    return all.filter(({ kind, user, doc, ip, sid }) => has(this.filter, kind, (KINDS[kind] ?? [])[0], user, doc, ip, sid));
  }

  row([time, kind, who, number], change, row) {
    if (time.dataset.text === `${change.partition}-${change.seq}`) return;
    time.dataset.text = `${change.partition}-${change.seq}`;
    time.textContent = clock(change.time);
    time.className = "time";
    const [words, tone] = KINDS[change.kind] ?? [change.kind, ""];
    kind.replaceChildren(el("span", { class: `kind ${tone}`, textContent: words }));
    const parts = [];
    if (change.user) parts.push(link(change.user, "user"));
    if (change.doc) parts.push(link(change.doc, "document"));
    if (change.ip) parts.push(el("span", { class: "soft", textContent: shown(change.ip) }));
    who.replaceChildren(...parts.flatMap((part, i) => (i ? [" · ", part] : [part])));
    number.textContent = change.threshold ? `${count(change.count)} (at ${count(change.threshold)})` : change.count === undefined ? "" : count(change.count);
    row.classList.toggle("fresh", this.app.now() - change.time < 1500);
  }
}

export class Sessions extends View {
  constructor(app) {
    super("sessions", app);
    this.list = new List($("sessions"), {
      label: "Sessions",
      columns: ["Session", "User", "Address", "Device", "End"],
      empty: () => (this.filter ? "No session matches this filter." : app.why("There is no session.")),
      row: (cells, sid) => this.row(cells, sid),
    });
  }

  keys() {
    const { names } = this.model.order.sessions;
    if (!this.filter) return names;
    return names.filter((sid) => {
      const { user, ip } = this.model.sessions.get(sid);
      return has(this.filter, sid, user, ip);
    });
  }

  row([session, user, address, agent, end], sid) {
    const found = this.model.sessions.get(sid);
    if (!found) return;
    button(session, sid, () => link(sid, "session"));
    button(user, found.user, () => (found.user ? link(found.user, "user") : el("span", { class: "soft", textContent: "nobody" })));
    put(address, shown(found.ip || "–"), "soft");
    put(agent, device(found.ua) || "–", "soft");
    const text = this.app.rights.write ? sid : "";
    button(end, text, () => (text ? this.app.panel.endButton(sid) : ""));
  }
}

export class Documents extends View {
  constructor(app) {
    super("documents", app);
    this.list = new List($("documents"), {
      label: "Documents with people in them",
      columns: ["Document", "People", "Thresholds"],
      empty: () => (this.filter ? "No document matches this filter." : app.why("Nobody is in a document.")),
      row: (cells, doc) => this.row(cells, doc),
    });
  }

  keys() {
    const { names } = this.model.order.documents;
    return this.filter ? names.filter((doc) => has(this.filter, doc)) : names;
  }

  row([document, people, thresholds], doc) {
    const found = this.model.documents.get(doc);
    if (!found) return;
    button(document, doc, () => link(doc, "document"));
    put(people, count(found.count));
    const marks = [...found.thresholds].sort(([a], [b]) => a - b);
    button(thresholds, `${doc} ${marks}`, () => el("span", {}, ...chips(marks)));
  }
}

export const chips = (marks) =>
  marks.map(([up, reached]) => el("span", { class: reached ? "chip on" : "chip", textContent: `${count(up)} ${reached ? "reached" : "not reached"}` }));

/** The most viewed items and the recent tokens, requested while this view is shown. */
export class Views {
  dirty = true;

  constructor(app) {
    this.app = app;
    setInterval(() => app.view === this && !document.hidden && this.load(), REFRESH_MS);
  }

  paint() {
    if (this.dirty) this.load();
    this.dirty = false;
  }

  async load() {
    try {
      const [viewed, tokens] = await Promise.all([get("most-viewed?limit=25"), get("recent?limit=25")]);
      const item = ({ item, views }) => el("li", {}, name(item), el("span", { class: "time", textContent: count(views) }));
      const token = ({ user, last_seen_ms }) =>
        el("li", {}, user ? link(user, "user") : el("span", { textContent: "unknown" }), el("span", { class: "time", textContent: ago(last_seen_ms, this.app.now()) }));
      fill($("viewed"), viewed.items.map(item), "No item has been viewed.");
      fill($("tokens"), tokens.items.map(token), "No token has been used.");
    } catch (failed) {
      fill($("viewed"), [], failed.message);
      fill($("tokens"), [], failed.message);
    }
  }
}

function fill(list, items, otherwise) {
  list.replaceChildren(...(items.length ? items : [el("li", { class: "soft", textContent: otherwise })]));
}

/** A name that opens the panel about it. */
export function link(key, kind, text = key) {
  const open = () => document.dispatchEvent(new CustomEvent("show", { detail: { kind, key } }));
  return el("button", { type: "button", class: "link", onclick: open, title: shown(text) }, name(text));
}
