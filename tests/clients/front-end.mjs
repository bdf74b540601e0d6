// The front end from the source document of presence, word for word, with the few parts of a browser that it needs. The
// arguments are the directory with the libraries, the address and the user.
import { createRequire } from 'node:module';

const [, , folder, address, user] = process.argv;
const { io } = createRequire(`${folder}/`)('socket.io-client');
const socket = io(address);
const { fetch: send, setInterval: every } = globalThis;
Object.assign(globalThis, {
  window: { currentUser: user, location: { pathname: '/dashboard' }, SyncManager: { getSocket: () => socket } },
  document: { addEventListener: (_, then) => then() },
  fetch: (path, options) => send(`${address}${path}`, options).then((answer) => console.log(answer.status)),
  setInterval: (then) => every(then, 100),
});

function startHeartbeat() {
  const user = window.currentUser || "anonymous";
  const page = window.location.pathname;

  // Отправлять heartbeat каждые 30 секунд
  setInterval(() => {
    try {
      // HTTP heartbeat
      fetch("/api/heartbeat", {
        method: "POST",
        headers: {
          "Content-Type": "application/json",
        },
        body: JSON.stringify({
          user: user,
          page: page,
        }),
      }).catch((err) => {
        console.warn("Heartbeat HTTP failed:", err);
      });

      // Socket.IO heartbeat
      if (window.SyncManager && window.SyncManager.getSocket) {
        const socket = window.SyncManager.getSocket();
        if (socket && socket.connected) {
          socket.emit("user:heartbeat", {
            user: user,
            page: page,
          });
        }
      }
    } catch (err) {
      console.warn("Heartbeat error:", err);
    }
  }, 30000); // 30 секунд
}

// Запустить heartbeat при загрузке страницы
document.addEventListener("DOMContentLoaded", () => {
  startHeartbeat();
});
