// The health of the deployment in sentences: what is wrong, and what to do about it.

import { get } from "./api.js";
import { $, ago, count, el, name, span } from "./dom.js";

const EVERY_MS = 2000;
/** After this long without an entry, the page says that no event has arrived. */
const QUIET_MS = 30000;
const JANITOR_MS = 60000;
const WAIT_S = 5;

export class Health {
  dirty = true;
  words = [];
  figures = {};

  constructor(app) {
    this.app = app;
  }

  start() {
    clearInterval(this.timer);
    this.timer = setInterval(() => document.hidden || this.look(), EVERY_MS);
    return this.look();
  }

  async look() {
    try {
      const [status, stats] = await Promise.all([get("status"), get("stats")]);
      this.app.setNow(status.now_ms);
      this.#measure(status);
      this.words = this.#judge(status);
      Object.assign(this, { status, stats, failed: null });
    } catch (failed) {
      if (failed.status === 401 || failed.status === 403) return this.app.refused(failed);
      const away = failed.status === 0 ? "This server does not respond. The page keeps trying; until then it shows the last known state." : `The state cannot be read: ${failed.message}. Until it can, this page shows the last known state.`;
      this.words = [["bad", away]];
      this.failed = failed;
    }
    this.dirty = true;
    this.app.told(this);
  }

  #measure({ now_ms, partitions }) {
    const streams = partitions.map(({ stream }) => stream).filter(Boolean);
    const added = streams.reduce((sum, { entries_added }) => sum + entries_added, 0);
    const before = this.before ?? { added, at: now_ms, moved: now_ms };
    const passed = (now_ms - before.at) / 1000;
    const rate = passed > 0 ? Math.max(0, added - before.added) / passed : 0;
    this.before = { added, at: now_ms, moved: added !== before.added ? now_ms : before.moved };
    this.figures = {
      rate,
      waiting: streams.reduce((sum, { group }) => sum + (group?.undelivered ?? 0), 0),
      oldest_s: Math.max(0, ...streams.map(({ group }) => group?.oldest_undelivered_age_s ?? 0)),
    };
  }

  #judge({ now_ms, partitions, stream, server }) {
    const words = [];
    const say = (tone, text) => words.push([tone, text]);
    const of = (list) => (partitions.length === 1 ? "" : ` (partitions ${list.map(({ partition }) => partition).join(", ")})`);
    const where = (test) => partitions.filter(test);
    const away = where((one) => one.away);
    if (away.length) say("bad", `Redis cannot be reached for partition ${away.map(({ partition }) => partition).join(", ")}: its part of the page is out of date or missing.`);
    const unowned = where(({ stream }) => stream && !stream.group?.owner);
    const waiting = unowned.some(({ stream }) => (stream.group?.undelivered ?? stream.entries) > 0);
    if (unowned.length) say(waiting ? "bad" : "warn", `No worker is running${of(unowned)}: events wait in the stream. Start one with rollcall worker.`);
    const late = where(({ stream }) => stream?.group?.owner && (stream.group.oldest_undelivered_age_s ?? 0) > WAIT_S);
    if (late.length) say("warn", `The state lags behind the events${of(late)}: the oldest one has waited for ${span(this.figures.oldest_s)}.`);
    const never = where(({ away, janitor_last_run_ms }) => !away && !janitor_last_run_ms);
    if (never.length) say("warn", `No janitor has run${of(never)}: nobody goes offline, and nothing is trimmed. Start one with rollcall janitor.`);
    const idle = where(({ janitor_last_run_ms: last }) => last && now_ms - last > JANITOR_MS);
    if (idle.length) say("warn", `No janitor has run for ${span((now_ms - Math.min(...idle.map((one) => one.janitor_last_run_ms))) / 1000)}${of(idle)}: nobody goes offline until one does.`);
    if (!partitions.some((one) => one.stream || one.away)) say("warn", `No event has arrived yet. Add one: redis-cli XADD ${stream} '*' type heartbeat user alice ip 203.0.113.7 page /`);
    else if (now_ms - this.before.moved > QUIET_MS) say("warn", `No event has arrived for ${span((now_ms - this.before.moved) / 1000)}.`);
    if (server?.evicted_keys > 0) say("bad", `Redis has evicted ${count(server.evicted_keys)} keys: state is lost. Set maxmemory-policy to noeviction.`);
    if (words.length === 0) say("good", "Events arrive, a worker applies them, and a janitor cleans up.");
    return words;
  }

  paint() {
    if (!this.dirty) return;
    this.dirty = false;
    const words = el("ul", { class: "words" }, ...this.words.map(([tone, text]) => el("li", { class: tone, textContent: text })));
    const parts = [words];
    if (this.status) parts.push(this.#partitions(this.status), this.#sizes(this.stats), this.#server(this.status));
    $("health").replaceChildren(...parts);
  }

  #partitions({ partitions, now_ms }) {
    const row = ({ partition, stream, janitor_last_run_ms }) => [
      partition, stream?.group?.owner ? name(stream.group.owner) : "none",
      count(stream?.group?.undelivered ?? stream?.entries ?? 0) + (stream?.group?.undelivered_is_exact === false ? " or more" : ""),
      stream?.group?.oldest_undelivered_age_s ? span(stream.group.oldest_undelivered_age_s) : "–",
      count(stream?.entries_added ?? 0), janitor_last_run_ms ? ago(janitor_last_run_ms, now_ms) : "never",
    ];
    return table("Partitions", ["Partition", "Owner", "Waiting", "Oldest waiting", "Entries added", "Janitor"], partitions.map(row));
  }

  #sizes({ structures }) {
    const words = (name) => name.replaceAll("_", " ");
    const row = ({ name, size, cap }) => [words(name), count(size), cap === null ? "–" : `${count(cap)} (${Math.round((size / cap) * 100)} %)`];
    return table("Structures", ["Structure", "Members", "Cap"], structures.map(row));
  }

  #server({ server }) {
    if (!server) return el("p", { class: "soft", textContent: "Rollcall's Redis user may not read the server's state." });
    const mib = (bytes) => `${count(Math.round(bytes / 1048576))} MiB`;
    return table("Server", ["Software", "Role", "Uptime", "Memory", "Limit", "Replicas"], [[
      `${server.software} ${server.version}`, server.role, span(server.uptime_s), mib(server.used_memory_bytes),
      server.maxmemory_bytes ? mib(server.maxmemory_bytes) : "none", count(server.replicas),
    ]]);
  }
}

function table(title, columns, rows) {
  const head = el("tr", {}, ...columns.map((text) => el("th", { scope: "col", textContent: text })));
  const body = rows.map((cells) => el("tr", {}, ...cells.map((cell) => el("td", {}, cell))));
  const made = el("table", { attr: { "aria-label": title } }, el("thead", {}, head), el("tbody", {}, ...body));
  return el("div", {}, el("h3", { textContent: title }), el("div", { class: "scroll", tabIndex: 0, attr: { role: "group", "aria-label": title } }, made));
}
