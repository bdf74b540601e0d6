// Who is present, kept up to date from the live feed of `rollcall serve`.
//
//   import { follow } from "./roster.js";
//   const source = follow("", (present) => console.log([...present.values()]));
//
// The browser's EventSource reconnects by itself and sends the id of the last event, so nothing is missed or repeated.

/**
 * @param {string} url the address of `rollcall serve`; "" for the page's own origin
 * @param {(present: Map<string, object>) => void} onUpdate called after each update with everybody who is present
 * @param {typeof EventSource} [Source] another implementation of EventSource
 * @returns {EventSource} close() it to stop
 */
export function follow(url, onUpdate, Source = globalThis.EventSource) {
  const present = new Map();
  const key = ({ user, ip }) => JSON.stringify([user, ip]);
  const source = new Source(`${url}/api/v1/changes?kind=online&kind=offline&snapshot=1`);

  // At the start, and after a `gap`: everybody who is present.
  source.addEventListener("snapshot", (event) => {
    present.clear();
    for (const entry of JSON.parse(event.data).presence) present.set(key(entry), entry);
    onUpdate(present);
  });

  // Every change after the snapshot.
  source.addEventListener("message", (event) => {
    const change = JSON.parse(event.data);
    if (change.kind === "online") present.set(key(change), change);
    else present.delete(key(change));
    onUpdate(present);
  });
  return source;
}
