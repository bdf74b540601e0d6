// The page: selects the view, decides when to paint it, and signs users in and out.

import { Feed, get, post } from "./api.js";
import { $, clock, count, el } from "./dom.js";
import { Dead } from "./dead.js";
import { Events } from "./events.js";
import { Health } from "./health.js";
import { Model } from "./model.js";
import { Panel } from "./panel.js";
import { Changes, Documents, Online, Sessions, Views } from "./views.js";

const VIEWS = { online: "Online", events: "Events", changes: "Changes", sessions: "Sessions", documents: "Documents", views: "Views", dead: "Dead letters", health: "Health" };
/** A hidden page closes its connection after this long. */
const HIDDEN_MS = 60000;

class App {
  model = new Model();
  rights = { read: false, write: false };
  live = false;
  offset = 0;

  constructor() {
    this.panel = new Panel(this);
    this.health = new Health(this);
    this.views = {
      online: new Online(this), events: new Events(this), changes: new Changes(this), sessions: new Sessions(this), documents: new Documents(this),
      views: new Views(this), dead: new Dead(this), health: this.health,
    };
    this.feed = new Feed("changes?snapshot=1", {
      message: (change) => this.changed(() => this.model.change(change)),
      named: { snapshot: (snapshot) => this.changed(() => this.model.snapshot(snapshot)) },
      state: (state) => this.connection(state),
    });
    $("tabs").append(...Object.entries(VIEWS).map(([id, text]) => el("a", { href: `#/${id}`, textContent: text })));
    addEventListener("hashchange", () => this.route());
    document.addEventListener("visibilitychange", () => this.visibility());
    $("search").addEventListener("submit", (event) => {
      event.preventDefault();
      const user = $("who").value.trim();
      if (user) this.panel.show("user", user);
    });
    $("sign-in").querySelector("form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.signIn();
    });
    $("sign-out").addEventListener("click", () => this.signOut());
    setInterval(() => this.paint(), 1000);
  }

  // ---- signing in

  async start() {
    let access;
    try {
      access = await get("access");
    } catch (failed) {
      $("live").textContent = failed.status ? failed.message : "No response; retrying";
      $("live").className = "pill bad";
      setTimeout(() => this.start(), 2000);
      return;
    }
    this.rights = access;
    $("sign-out").hidden = access.open || !(access.read || access.write);
    $("sign-in").hidden = access.read;
    $("board").hidden = !access.read;
    if (!access.read) {
      $("sign-in-error").textContent = access.write ? "This token may only write. To see the state, use one that may read." : "";
      $("live").textContent = "Signed out";
      $("live").className = "pill";
      $("token").focus();
      return;
    }
    this.route();
    this.feed.start();
    await this.health.start();
  }

  async signIn() {
    $("sign-in-error").textContent = "";
    try {
      await post("login", { token: $("token").value });
      $("token").value = "";
      await this.start();
    } catch (failed) {
      $("sign-in-error").textContent = failed.status === 401 ? "This token is unknown or no longer valid." : `This failed: ${failed.message}.`;
      $("token").select();
    }
  }

  async signOut() {
    this.feed.stop();
    await post("logout", {});
    location.reload();
  }

  /** The token is no longer valid. */
  refused() {
    this.feed.stop();
    this.view?.leave?.();
    clearInterval(this.health.timer);
    this.start();
  }

  // ---- views

  route() {
    const id = location.hash.slice(2);
    const chosen = id in VIEWS ? id : "online";
    for (const link of $("tabs").children) {
      if (link.hash === `#/${chosen}`) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    for (const view of Object.keys(VIEWS)) $(`view-${view}`).hidden = view !== chosen;
    this.view?.leave?.();
    this.view = this.views[chosen];
    this.view.enter?.();
    this.view.dirty = true;
    this.paint();
  }

  changed(change) {
    change();
    for (const view of Object.values(this.views)) view.isFed && (view.dirty = true);
    this.paint();
  }

  /** At most once per frame, however much has changed. */
  paint() {
    if (this.frame || !this.rights.read) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      this.figures();
      this.view?.paint();
    });
  }

  figures() {
    const { rate = 0, waiting = 0, oldest_s = 0 } = this.health.figures;
    const tone = oldest_s > 30 ? "bad" : oldest_s > 5 ? "warn" : "";
    const all = [
      ["Online", count(this.model.people.size)], ["Sessions", count(this.model.sessions.size)], ["Documents", count(this.model.documents.size)],
      ["Entries/s", count(Math.round(rate))], ["Waiting", count(waiting), tone], ["Changes seen", count(this.model.seen)],
    ];
    const text = JSON.stringify(all);
    if (this.shownFigures === text) return;
    this.shownFigures = text;
    $("figures").replaceChildren(...all.map(([term, value, tone = ""]) => el("div", { class: tone }, el("dt", { textContent: term }), el("dd", { textContent: value }))));
  }

  // ---- the state of the connection

  connection(state) {
    this.live = state === "live";
    if (!this.live) this.lostAt ??= Date.now();
    else this.lostAt = undefined;
    this.pill();
  }

  told() {
    const worst = this.health.words.filter(([tone]) => tone !== "good");
    const text = JSON.stringify(worst);
    if (this.shownWords !== text) {
      this.shownWords = text;
      $("warnings").replaceChildren(...worst.map(([tone, words]) => el("p", { class: `notice ${tone}`, textContent: words })));
    }
    if (this.health.failed?.status > 0) this.staleAt ??= Date.now();
    else this.staleAt = undefined;
    this.pill();
    this.paint();
  }

  pill() {
    const [text, tone] = this.lostAt ? [`Reconnecting since ${clock(this.lostAt)}`, "bad"] : this.staleAt ? [`As of ${clock(this.staleAt)}`, "bad"] : ["Live", "good"];
    if ($("live").textContent !== text) $("live").textContent = text;
    $("live").className = `pill ${tone}`;
  }

  /** Why a list is empty: a reason that concerns the whole page, or else the given text. */
  why(otherwise) {
    if (this.lostAt) return "The connection is lost. The page reconnects by itself.";
    return this.health.words.find(([tone]) => tone === "bad")?.[1] ?? otherwise;
  }

  visibility() {
    clearTimeout(this.hiding);
    if (document.hidden) {
      this.hiding = setTimeout(() => {
        this.feed.stop();
        this.view?.leave?.();
        this.isAsleep = true;
      }, HIDDEN_MS);
    } else if (this.isAsleep && this.rights.read) {
      this.isAsleep = false;
      this.feed.start();
      this.view?.enter?.();
    }
  }

  setNow(serverMs) {
    this.offset = serverMs - Date.now();
  }

  /** The time by the server's clock, even if this machine's clock is wrong. */
  now() {
    return Date.now() + this.offset;
  }
}

new App().start();
