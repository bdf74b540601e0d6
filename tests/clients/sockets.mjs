// Socket.IO clients in JavaScript, driven by tests/live/listen/sockets.rs: each line of JSON on input is a command, and
// each line of output is an event that a client received. The first argument is the directory with the libraries.
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';

const require = createRequire(`${process.argv[2]}/`);
const { io } = require('socket.io-client');

const sockets = new Map();
const say = (name, event, data) => console.log(JSON.stringify({ name, event, data: data ?? null }));

const commands = {
  connect({ name, url, transports, auth }) {
    const socket = io(url, { transports, auth, forceNew: true, reconnectionDelay: 50, reconnectionDelayMax: 200 });
    sockets.set(name, socket);
    socket.on('connect', () => say(name, 'connect', socket.io.engine.transport.name));
    socket.io.engine?.on('upgrade', (transport) => say(name, 'upgrade', transport.name));
    socket.on('connect_error', (error) => say(name, 'connect_error', error.message));
    socket.on('disconnect', (reason) => say(name, 'disconnect', reason));
    socket.onAny((event, data) => say(name, event, data));
  },
  emit({ name, event, data }) {
    sockets.get(name).emit(event, ...(data === undefined ? [] : [data]));
  },
  ask({ name, event, data }) {
    sockets.get(name).emit(event, data, (answer) => say(name, 'ack', answer));
  },
  close({ name }) {
    sockets.get(name).disconnect();
  },
};

createInterface({ input: process.stdin })
  .on('line', (line) => {
    const command = JSON.parse(line);
    commands[command.do](command);
  })
  .on('close', () => process.exit(0));
