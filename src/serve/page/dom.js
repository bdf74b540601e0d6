// Elements, and times as text. What users wrote enters the page as text only.

/** An element with properties, `class`, attributes in `attr`, and children that are elements or text. */
export function el(name, properties = {}, ...children) {
  const element = document.createElement(name);
  const { class: className, attr = {}, ...rest } = properties;
  if (className) element.className = className;
  for (const [key, value] of Object.entries(attr)) element.setAttribute(key, value);
  Object.assign(element, rest);
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export const $ = (id) => document.getElementById(id);

/** A name as text, with control characters made visible. */
export function shown(text) {
  const visible = String(text).replace(/[\u0000-\u001f\u007f]/g, (c) => String.fromCharCode(0x2400 + (c.charCodeAt(0) & 0x1f)));
  return visible === "" ? "(empty)" : visible;
}

/** A name in its own element, so that it cannot change the direction of the text around it. */
export const name = (text, properties = {}) => el("bdi", { ...properties, textContent: shown(text), title: shown(text) });

const number = new Intl.NumberFormat();
export const count = (n) => number.format(n);

/** A term and its description, for a description list. */
export const pair = (term, ...what) => [el("dt", { textContent: term }), el("dd", {}, ...what)];

/** Long enough to read a question and to reach the button with the keyboard. */
const SURE_MS = 10000;
const NOTICE_MS = 10000;

/**
 * Makes a button act when it is pressed a second time. `ask` returns the question to show first, or `null` to act at once.
 */
export function twice(made, words, act, ask = () => "Sure?") {
  let asked = false;
  let busy = false;
  let timer;
  const show = (text, isQuestion) => {
    clearTimeout(timer);
    made.textContent = text;
    asked = isQuestion;
    if (isQuestion) timer = setTimeout(() => show(words, false), SURE_MS);
  };
  show(words, false);
  made.addEventListener("click", async () => {
    if (busy) return;
    busy = true;
    try {
      const question = asked ? null : await ask();
      show(question ?? words, question !== null);
      if (question === null) await act();
    } catch (failed) {
      show(words, false);
      say(`This failed: ${failed.message}.`, "bad");
    } finally {
      busy = false;
    }
  });
}

/** Shows a message for a while; in the panel if it is open, since the panel hides the page. */
export function say(text, tone = "") {
  const notice = el("p", { class: `notice ${tone}`, textContent: text });
  $($("panel").open ? "panel-notices" : "notices").append(notice);
  setTimeout(() => notice.remove(), NOTICE_MS);
}

/** How long ago, as text that fits a column. */
export function ago(ms, now) {
  const s = Math.max(0, Math.round((now - ms) / 1000));
  if (s < 2) return "now";
  return `${span(s)} ago`;
}

export function span(seconds) {
  const s = Math.round(seconds);
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

export const clock = (ms) => new Date(ms).toLocaleTimeString([], { hour12: false });

/** The browser and operating system in a user agent. */
export function device(ua = "") {
  const browser = ["Edg", "Firefox", "Chrome", "Safari"].find((one) => ua.includes(`${one}/`));
  const system = [["Android", "Android"], ["iPhone", "iPhone"], ["iPad", "iPad"], ["Windows", "Windows"], ["Mac OS", "macOS"],
    ["Linux", "Linux"]].find(([mark]) => ua.includes(mark));
  const parts = [browser === "Edg" ? "Edge" : browser, system?.[1]].filter(Boolean);
  return parts.length ? parts.join(", ") : ua;
}
