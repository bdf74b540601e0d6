// Rollcall in a page: says that the user is here, as long as the page is looked at.
//
//   import { startHeartbeat } from "./rollcall.js";
//   const stop = startHeartbeat({ user: "alice" });
//
// Every half minute while the page is visible, at once when it becomes visible again, and a last time when it is
// left. It goes through Socket.IO where a connected socket is given, and over HTTP otherwise.

/**
 * @param {object} options
 * @param {string} [options.user] who; not needed with a JSON Web Token, which says it
 * @param {string} [options.url] where `rollcall serve` is; the page's own origin if it is not given
 * @param {string | (() => string)} [options.token] a bearer token, or what gives the latest one
 * @param {object} [options.socket] a socket of socket.io-client
 * @param {number} [options.interval] milliseconds between two heartbeats
 * @param {() => string} [options.page] the page to report
 * @returns {() => void} stops it
 */
export function startHeartbeat({
  user,
  url = "",
  token,
  socket,
  interval = 30_000,
  page = () => location.pathname,
} = {}) {
  const address = `${url}/api/heartbeat`;
  let timer;

  function send() {
    const heartbeat = { user, page: page() };
    if (socket?.connected) {
      socket.emit("user:heartbeat", heartbeat);
    } else {
      post(heartbeat);
    }
  }

  function post(heartbeat) {
    const bearer = typeof token === "function" ? token() : token;
    const headers = { "Content-Type": "application/json" };
    if (bearer) headers.Authorization = `Bearer ${bearer}`;
    // keepalive: the browser sends it even if the page is gone by then.
    fetch(address, { method: "POST", headers, body: JSON.stringify(heartbeat), keepalive: true })
      .then((answer) => {
        if (!answer.ok) console.warn(`heartbeat: ${answer.status}`);
      })
      .catch((error) => console.warn("heartbeat:", error));
  }

  function leave() {
    const heartbeat = { user, page: page() };
    // A beacon outlives the page in every browser, but carries no header: only where nobody asks for a token.
    if (!token && !url && navigator.sendBeacon?.(address, JSON.stringify(heartbeat))) return;
    post(heartbeat);
  }

  function watch() {
    clearInterval(timer);
    if (document.visibilityState === "visible") {
      send();
      timer = setInterval(send, interval);
    }
  }

  document.addEventListener("visibilitychange", watch);
  window.addEventListener("pagehide", leave);
  watch();
  return () => {
    clearInterval(timer);
    document.removeEventListener("visibilitychange", watch);
    window.removeEventListener("pagehide", leave);
  };
}
