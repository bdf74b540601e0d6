// Live events, while their view is shown. If there are too many to read, only some are shown.

import { Feed } from "./api.js";
import { $, clock, count, el, shown } from "./dom.js";
import { List, put } from "./list.js";
import { View, has, link } from "./views.js";

const KEPT = 500;

export class Events extends View {
  isFed = false;
  events = []; // newest first
  left = 0;

  constructor(app) {
    super("events", app);
    this.list = new List($("events"), {
      label: "Events, newest first",
      columns: ["Time", "Event", "Who and where", "What"],
      empty: () => (this.filter ? "No event matches this filter." : app.why("No event has arrived since this view was opened.")),
      row: (cells, event, row) => this.row(cells, event, row),
    });
    this.feed = new Feed("activity", { message: (event) => this.add(event), named: { left_out: ({ count: left }) => this.leave_out(left) } });
  }

  enter() {
    this.feed.start();
  }

  leave() {
    this.feed.stop();
  }

  add(event) {
    this.events.unshift(event);
    this.events.length = Math.min(this.events.length, KEPT);
    this.dirty = true;
    this.app.paint();
  }

  leave_out(left) {
    this.left += left;
    $("events-left").textContent = `${count(this.left)} more not shown`;
  }

  keys() {
    if (!this.filter) return this.events;
    return this.events.filter(({ type, user, doc, ip, sid, page, item }) => has(this.filter, type, user, doc, ip, sid, page, item));
  }

  row([time, type, who, what], event, row) {
    const id = `${event.partition} ${event.id} ${event.index}`;
    if (time.dataset.text === id) return;
    time.dataset.text = id;
    time.textContent = clock(event.time);
    time.className = "time";
    type.replaceChildren(el("span", { class: "kind", textContent: event.type }));
    const parts = [["user", "user"], ["doc", "document"], ["sid", "session"]].filter(([member]) => event[member]).map(([member, kind]) => link(event[member], kind));
    if (event.ip) parts.push(el("span", { class: "soft", textContent: shown(event.ip) }));
    who.replaceChildren(...parts.flatMap((part, i) => (i ? [" · ", part] : [part])));
    put(what, [event.action, event.page, event.item].filter(Boolean).map(shown).join(" "), "soft");
    row.classList.toggle("fresh", this.app.now() - event.time < 1500);
  }
}
