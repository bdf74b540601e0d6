// The panel beside the lists: what is known about one user, session, document or dead letter.

import { del, get, part, post } from "./api.js";
import { $, ago, clock, count, device, el, name, pair, say, shown, twice } from "./dom.js";
import { chips, link } from "./views.js";

/** Up to a hundred sessions of a user. Among many of others they may be on any page. */
async function sessionsOf(user) {
  let [found, cursor] = [[], ""];
  do {
    const page = await get(`sessions?limit=100&user=${part(user)}&cursor=${part(cursor)}`);
    found = found.concat(page.items);
    cursor = page.cursor;
  } while (cursor && found.length < 100);
  return found.slice(0, 100);
}

export class Panel {
  constructor(app) {
    this.app = app;
    this.dialog = $("panel");
    $("panel-close").addEventListener("click", () => this.close());
    this.dialog.addEventListener("click", (event) => event.target === this.dialog && this.close());
    document.addEventListener("show", ({ detail }) => this.show(detail.kind, detail.key));
  }

  async show(kind, key) {
    $("panel-title").replaceChildren(el("span", { class: "soft", textContent: `${kind[0].toUpperCase()}${kind.slice(1)} ` }), name(key));
    this.shown = `${kind} ${key}`;
    const shownFor = this.shown;
    $("panel-body").replaceChildren(el("p", { class: "soft", textContent: "Loading…" }));
    if (!this.dialog.open) this.dialog.showModal();
    let parts;
    try {
      parts = await this[kind](key);
    } catch (failed) {
      parts = [el("p", { class: "error", textContent: `This cannot be shown: ${failed.message}.` })];
    }
    if (this.shown === shownFor) $("panel-body").replaceChildren(...parts);
  }

  async user(user) {
    const now = this.app.now();
    const [{ users, changes, changes_since_ms }, sessions] = await Promise.all([post("users/query", { users: [user], changes: 200 }), sessionsOf(user)]);
    const found = users[0];
    const since = (ip) => {
      const last = changes.find((change) => change.kind === "online" && change.ip === ip);
      return last ? clock(last.time) : changes_since_ms ? `before ${clock(changes_since_ms)}` : "not known";
    };
    const addresses = (found?.addresses ?? []).map(({ ip, page, ua, last_seen_ms }) =>
      el("dl", {}, ...pair("Page", name(page || "–")), ...pair("Address", name(ip || "–")), ...pair("Device", name(device(ua) || "–", { title: ua })),
        ...pair("Seen", ago(last_seen_ms, now)), ...pair("Since", since(ip))));
    const state = found?.online ? "Online now." : found?.last_seen_ms ? `Not online. Last seen ${ago(found.last_seen_ms, now)}.` : "Not online, and not seen recently.";
    const own = sessions.map(({ sid, ip, last_activity_ms }) =>
      el("li", {}, link(sid, "session"), el("span", { class: "soft", textContent: `${shown(ip)} · ${ago(last_activity_ms, now)}` }), this.app.rights.write ? this.endButton(sid) : null));
    const documents = [...this.app.model.documents.values()].filter(({ members }) => members.has(user));
    const did = changes.slice(0, 12);
    return [
      el("p", { textContent: state }), ...addresses,
      el("h3", { textContent: `Sessions (${count(own.length)})` }), own.length ? el("ul", {}, ...own) : el("p", { class: "soft", textContent: "None." }),
      ...(documents.length ? [el("h3", { textContent: "In documents" }), el("ul", {}, ...documents.map(({ doc }) => el("li", {}, link(doc, "document"))))] : []),
      el("h3", { textContent: "Latest changes" }),
      did.length ? el("ul", {}, ...did.map(({ time, kind, doc }) => el("li", {}, el("span", { textContent: `${kind.replaceAll("_", " ")}${doc ? ` ${shown(doc)}` : ""}` }), el("span", { class: "time", textContent: clock(time) }))))
        : el("p", { class: "soft", textContent: "None are kept." }),
    ];
  }

  async session(sid) {
    const now = this.app.now();
    const found = await get(`sessions/${part(sid)}`);
    const left = Math.round((found.expires_ms - now) / 60000);
    const data = found.data ?? (found.data_base64 ? `(not text) ${found.data_base64}` : null);
    return [
      el("dl", {}, ...pair("User", found.user ? link(found.user, "user") : "nobody"), ...pair("Address", name(found.ip || "–")),
        ...pair("Device", name(device(found.ua) || "–", { title: found.ua ?? "" })), ...pair("Last activity", found.last_activity_ms ? ago(found.last_activity_ms, now) : "–"),
        ...pair("Expires", found.active ? `in ${count(Math.max(left, 0))} min without activity` : "ended")),
      el("h3", { textContent: "Data" }), data === null ? el("p", { class: "soft", textContent: "None." }) : el("pre", { tabIndex: 0, textContent: data }),
      this.app.rights.write && found.active ? this.endButton(sid, "End this session") : null,
    ].filter(Boolean);
  }

  letter(id) {
    return this.app.views.dead.letter(id);
  }

  close() {
    this.dialog.close();
  }

  async document(doc) {
    const found = this.app.model.documents.get(doc);
    if (!found) return [el("p", { textContent: "Nobody is in this document." })];
    const people = [...found.members].slice(0, 500).map((user) => el("li", {}, link(user, "user")));
    return [
      el("p", { textContent: `${count(found.count)} ${found.count === 1 ? "person is" : "people are"} in it.` }),
      el("p", {}, ...chips([...found.thresholds].sort(([a], [b]) => a - b))),
      el("ul", {}, ...people),
    ];
  }

  /** A button that ends a session when it is pressed a second time. */
  endButton(sid, words = "End") {
    const spoken = words === "End" ? `End session ${shown(sid)}` : words;
    const made = el("button", { type: "button", class: "danger", attr: { "aria-label": spoken } });
    twice(made, words, async () => {
      await del(`sessions/${part(sid)}`);
      say(`Session ${shown(sid)} will end.`);
    });
    return made;
  }
}
