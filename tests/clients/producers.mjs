// Events as producers in JavaScript write them, with the expected results: one line of JSON per case, for
// tests/live/clients.rs. The first argument is the directory with the libraries.
import { createRequire } from 'node:module';

const require = createRequire(`${process.argv[2]}/`);
const { pack, Packr } = require('msgpackr');
const { encode } = require('@msgpack/msgpack');
const { CloudEvent, HTTP } = require('cloudevents');

const now = Date.now();
const wholeSecond = Math.floor(now / 1000) * 1000;
const MSGPACK = 'application/msgpack';

// One case: the entry's fields and what is expected. The user, or session, is named after it.
function say(library, name, fields, expected) {
  const base64 = (value) => Buffer.from(value).toString('base64');
  const pairs = Object.entries(fields).map(([field, value]) => [field, base64(value)]);
  const texts = 'data' in expected ? { data: base64(expected.data) } : {};
  console.log(JSON.stringify({ library, name, fields: pairs, expected: { ...expected, ...texts } }));
}

const msgpack = (data) => ({ datacontenttype: MSGPACK, data });
const beat = (user, more) => ({ type: 'heartbeat', user, page: '/home', ...more });

// ---- MessagePack

for (const [library, write] of [['msgpackr', pack], ['@msgpack/msgpack', (event) => encode(event)]]) {
  const at = (name, time, seen) =>
    say(library, name, msgpack(write(beat(name, { time }))), { seen, page: '/home' });
  at('a number', now, now);
  at('a date', new Date(wholeSecond + 123), wholeSecond + 123);
  at('a date of a whole second', new Date(wholeSecond), wholeSecond);
  at('an undefined time', undefined, null);
  at('a time of null', null, null);
  const none = { ip: undefined, ua: undefined, token: undefined, time: now };
  say(library, 'undefined members', msgpack(write(beat('undefined members', none))), { seen: now, page: '/home' });
  const bytes = beat(Buffer.from('bytes as user'), { time: now });
  say(library, 'bytes as user', msgpack(write(bytes)), { seen: now, page: '/home' });
  const packed = ['packed', 'another'].map((user) => beat(user, { time: new Date(now), sid: undefined }));
  say(library, 'packed', msgpack(write(packed)), { seen: now, page: '/home' });
  const data = { cart: ['a', undefined], since: new Date(now), left: undefined, large: now, price: 1.5, '<é>': '"' };
  const session = { type: 'session', sid: 'session data', data, time: now };
  // @msgpack/msgpack writes undefined as null, which JSON keeps.
  const kept = library === 'msgpackr' ? data : { ...data, left: null };
  say(library, 'session data', msgpack(write(session)), { data: JSON.stringify(kept) });
  const bad = (name, time) => say(library, name, msgpack(write(beat(name, { time }))), { reason: 'invalid_time' });
  bad('an invalid date', new Date(NaN));
  bad('the epoch', new Date(0));
  bad('a date far ahead', new Date(8.64e15));
  bad('seconds', Math.floor(now / 1000));
  bad('a fraction', now + 0.5);
  bad('infinity', Infinity);
}
say('msgpackr', 'a large integer', msgpack(pack(beat('a large integer', { time: BigInt(now) }))), { seen: now, page: '/home' });
say('msgpackr', 'a record', msgpack(new Packr().pack(beat('a record'))), { reason: 'invalid_msgpack', detail: 'useRecords: false' });
const floats = encode(beat('floats', { time: now }), { forceIntegerToFloat: true });
say('@msgpack/msgpack', 'floats', msgpack(floats), { seen: now, page: '/home' });

// ---- CloudEvents

const time = new Date(now).toISOString();
const cloud = (data, more) => new CloudEvent({ type: 'heartbeat', source: '/edge', time, data, ...more });
const members = (user) => ({ user, page: '/home' });
const bytes = (value) => new Uint8Array(Buffer.from(value));

// What binary mode is over HTTP: attributes beside the body.
function binary(event) {
  const { headers, body } = HTTP.binary(event);
  const attributes = Object.entries(headers).map(([name, value]) =>
    [name === 'content-type' ? 'datacontenttype' : name.replace(/^ce-/, ''), value]);
  return { ...Object.fromEntries(attributes), data: body };
}

for (const [name, data, more] of [
  ['an object', members],
  ['a text', (user) => JSON.stringify(members(user))],
  ['bytes', (user) => bytes(JSON.stringify(members(user)))],
  ['bytes of MessagePack', (user) => pack(members(user)), { datacontenttype: MSGPACK }],
  ['said to be JSON', members, { datacontenttype: 'application/json' }],
  ['an extension beside', members, { tenant: 'acme' }],
]) {
  const expected = { seen: now, page: '/home' };
  say('CloudEvents', name, { data: HTTP.structured(cloud(data(name), more)).body }, expected);
  say('CloudEvents', `${name} in binary mode`, binary(cloud(data(`${name} in binary mode`), more)), expected);
}
const batch = ['a batch', 'second'].map((user) => cloud(bytes(JSON.stringify(members(user)))));
say('CloudEvents', 'a batch', { data: JSON.stringify(batch) }, { seen: now, page: '/home' });
const opaque = new Uint8Array([0xff, 0, 0x7b, 0x22]);
const session = { type: 'session', sid: 'opaque bytes', datacontenttype: 'application/octet-stream' };
say('CloudEvents', 'opaque bytes', { data: HTTP.structured(cloud(opaque, session)).body }, { data: opaque });
const flat = { ...session, sid: 'opaque in binary mode' };
say('CloudEvents', 'opaque in binary mode', binary(cloud(opaque, flat)), { data: opaque });
const never = cloud(members('the zero time of Go'), { time: '0001-01-01T00:00:00Z' });
say('CloudEvents', 'the zero time of Go', { data: HTTP.structured(never).body }, { reason: 'invalid_time' });
