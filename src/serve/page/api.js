// The API, at addresses relative to the page, since a proxy may serve both under a path.

const BASE = "api/v1/";

/** Why a request failed; `status` is 0 if there was no response. */
export class Failed extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

async function ask(method, path, body) {
  let response;
  try {
    const headers = body === undefined ? {} : { "content-type": "application/json" };
    response = await fetch(BASE + path, { method, headers, body: body && JSON.stringify(body), signal: AbortSignal.timeout(15000) });
  } catch {
    throw new Failed(0, "the server does not respond");
  }
  const text = await response.text();
  if (response.ok) return text && JSON.parse(text);
  let detail = response.statusText;
  try {
    detail = JSON.parse(text).detail ?? detail;
  } catch {
    // A proxy between the browser and the server responded, in a format of its own.
  }
  throw new Failed(response.status, detail);
}

export const get = (path) => ask("GET", path);
export const post = (path, body) => ask("POST", path, body);
export const del = (path) => ask("DELETE", path);
export const part = encodeURIComponent;

/**
 * A stream of server-sent events. When the connection breaks, the browser reconnects and resumes; when the server
 * refuses, this class reconnects. `message` gets events without a name, `named` the others, and `state` is called with
 * `live` or `lost`.
 */
export class Feed {
  constructor(path, { message, named = {}, state = () => {} }) {
    Object.assign(this, { path, message, named, state, wait: 1000 });
  }

  start() {
    this.stop();
    const source = new EventSource(BASE + this.path);
    this.source = source;
    source.onopen = () => {
      this.wait = 1000;
      this.state("live");
    };
    source.onmessage = (event) => this.message(JSON.parse(event.data));
    for (const [name, hear] of Object.entries(this.named)) source.addEventListener(name, (event) => hear(JSON.parse(event.data)));
    source.onerror = () => {
      this.state("lost");
      if (source.readyState !== EventSource.CLOSED) return;
      this.timer = setTimeout(() => this.start(), this.wait);
      this.wait = Math.min(this.wait * 2, 15000);
    };
  }

  stop() {
    clearTimeout(this.timer);
    this.source?.close();
  }
}
