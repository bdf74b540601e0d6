// A Socket.IO server with the Redis adapter, and a client in the given rooms. Prints each event that the client receives
// as a line of JSON. node-rooms.mjs <libraries> <redis url> <room …>
import { createServer } from "node:http";
import { createRequire } from "node:module";

const [libraries, url, ...rooms] = process.argv.slice(2);
const require = createRequire(`${libraries}/package.json`);
const { createAdapter } = require("@socket.io/redis-adapter");
const { Redis } = require("ioredis");
const { Server } = require("socket.io");
const { io } = require("socket.io-client");
const say = (event, data) => console.log(JSON.stringify({ event, data }));

const publisher = new Redis(url);
const subscriber = publisher.duplicate();
const http = createServer();
const server = new Server(http, { adapter: createAdapter(publisher, subscriber) });
server.on("connection", async (socket) => {
  await socket.join(rooms);
  socket.emit("in_rooms", rooms);
});
http.listen(0, "127.0.0.1", () => {
  const client = io(`http://127.0.0.1:${http.address().port}`);
  client.onAny(say);
});
// Whoever started it is gone.
process.stdin.on("end", () => process.exit()).resume();
