// The example for browsers, with the EventSource from npm. Prints who is present, like the example in Python. The
// arguments are the directory with the libraries and the address.
import { createRequire } from 'node:module';
import { follow } from '../../examples/live/roster.js';

const require = createRequire(`${process.argv[2]}/`);
const { EventSource } = require('eventsource');

follow(
  process.argv[3],
  (present) => console.log(JSON.stringify([...present.values()].map(({ user, ip }) => [user, ip]).sort())),
  EventSource,
);
