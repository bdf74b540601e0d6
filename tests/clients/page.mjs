// The snippet for browsers, with the few parts of a page that it needs: the page is visible, then hidden, then left. The
// arguments are the snippet, the address and the user.
import { readFileSync } from 'node:fs';

const [, , snippet, address, user] = process.argv;
const source = readFileSync(snippet).toString('base64');
const { startHeartbeat } = await import(`data:text/javascript;base64,${source}`);
const listeners = {};
const target = {
  addEventListener: (kind, then) => (listeners[kind] = then),
  removeEventListener: (kind) => delete listeners[kind],
};
const { fetch: send } = globalThis;
const sent = [];
const fetchOfPage = (...request) => {
  sent.push(send(...request));
  return sent.at(-1);
};
const document = { ...target, visibilityState: 'visible' };
Object.assign(globalThis, { document, window: target, fetch: fetchOfPage });
const pause = (milliseconds) => new Promise((then) => setTimeout(then, milliseconds));

let page = '/seen';
const stop = startHeartbeat({ user, url: address, interval: 20, page: () => page });
while (sent.length < 3) await pause(5);
[document.visibilityState, page] = ['hidden', '/hidden'];
listeners.visibilitychange();
await pause(200);
page = '/left';
listeners.pagehide();
stop();
console.log(Object.keys(listeners).length, (await Promise.all(sent)).every((answer) => answer.ok));
