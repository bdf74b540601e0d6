// Sends heartbeats to Rollcall while the page is visible.
//
//   import { startHeartbeat } from "./rollcall.js";
//   const stop = startHeartbeat({ user: "alice" });
//
// One every 30 seconds while the page is visible, one as soon as it becomes visible again, and a last one when the
// user leaves it. They use Socket.IO if a connected socket is given, and HTTP otherwise.

/**
 * @param {object} options
 * @param {string} [options.user] the user; not needed with a JSON Web Token, which names the user
 * @param {string} [options.url] the address of `rollcall serve`; default: the page's own origin
 * @param {string | (() => string)} [options.token] a bearer token, or a function that returns the latest one
 * @param {object} [options.socket] a socket of socket.io-client
 * @param {number} [options.interval] milliseconds between two heartbeats
 * @param {() => string} [options.page] returns the page to report
 * @returns {() => void} stops the heartbeats
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
    // keepalive: the browser completes the request even if the page is closed.
    fetch(address, { method: "POST", headers, body: JSON.stringify(heartbeat), keepalive: true })
      .then((answer) => {
        if (!answer.ok) console.warn(`heartbeat: ${answer.status}`);
      })
      .catch((error) => console.warn("heartbeat:", error));
  }

  function leave() {
    const heartbeat = { user, page: page() };
    // Every browser sends a beacon after the page is closed, but without headers. So it is used only without a token.
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
