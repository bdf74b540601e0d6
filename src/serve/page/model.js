// The page's copy of the state: a snapshot and the changes since.

const KEPT_CHANGES = 500;

/** Names that are kept in order while some are added and removed. */
export class Order {
  names = [];

  #place(name) {
    let [low, high] = [0, this.names.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.names[middle] < name) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  add(name) {
    const at = this.#place(name);
    if (this.names[at] !== name) this.names.splice(at, 0, name);
  }

  remove(name) {
    const at = this.#place(name);
    if (this.names[at] === name) this.names.splice(at, 1);
  }

  reset(names) {
    this.names = [...names].sort((a, b) => (a < b ? -1 : a > b ? 1 : 0));
  }
}

export class Model {
  people = new Map(); // user → { user, addresses: address → { page, ua, last_seen_ms } }
  sessions = new Map(); // sid → { sid, user, ip, ua }
  documents = new Map(); // doc → { doc, count, members: user → connections, thresholds: up → reached }
  order = { people: new Order(), sessions: new Order(), documents: new Order() };
  changes = []; // the newest last
  seen = 0;

  snapshot({ presence = [], sessions = [], documents = [] }) {
    this.people = new Map();
    for (const entry of presence) this.#address(entry.user, entry.ip, entry);
    this.sessions = new Map(sessions.map((session) => [session.sid, session]));
    this.documents = new Map(documents.map(({ doc, users, members, thresholds }) => [doc, {
      doc,
      count: users,
      members: new Set(members.map(({ user }) => user)),
      thresholds: new Map(thresholds.map(({ up, reached }) => [up, reached])),
    }]));
    this.order.people.reset(this.people.keys());
    this.order.sessions.reset(this.sessions.keys());
    this.order.documents.reset(this.documents.keys());
  }

  #address(user, ip, known) {
    let person = this.people.get(user);
    if (!person) {
      person = { user, addresses: new Map() };
      this.people.set(user, person);
    }
    person.addresses.set(ip, { ...person.addresses.get(ip), ...known });
  }

  /** Takes from a user's state on the server what changes do not contain: page, user agent, last seen. */
  update({ user, addresses }) {
    if (!this.people.has(user)) return;
    for (const address of addresses) {
      if (this.people.get(user).addresses.has(address.ip)) this.#address(user, address.ip, address);
    }
  }

  change(change) {
    this.seen += 1;
    this.changes.push(change);
    if (this.changes.length > KEPT_CHANGES * 2) this.changes = this.changes.slice(-KEPT_CHANGES);
    const { kind, user, ip, sid, doc, time } = change;
    switch (kind) {
      case "online":
        this.#address(user, ip, { last_seen_ms: time });
        this.order.people.add(user);
        break;
      case "offline":
        this.people.get(user)?.addresses.delete(ip);
        if (this.people.get(user)?.addresses.size === 0) {
          this.people.delete(user);
          this.order.people.remove(user);
        }
        break;
      case "session_started":
        this.sessions.set(sid, { sid, user, ip: "", ua: "" });
        this.order.sessions.add(sid);
        break;
      case "session_ended":
      case "session_expired":
        this.sessions.delete(sid);
        this.order.sessions.remove(sid);
        break;
      case "document_joined":
      case "document_left":
      case "threshold_reached":
      case "threshold_left":
        this.#document(doc, change);
        break;
    }
  }

  #document(doc, { kind, user, count, threshold }) {
    let document = this.documents.get(doc);
    if (!document) {
      document = { doc, count: 0, members: new Set(), thresholds: new Map() };
      this.documents.set(doc, document);
      this.order.documents.add(doc);
    }
    document.count = count;
    if (kind === "document_joined") document.members.add(user);
    if (kind === "document_left") document.members.delete(user);
    if (threshold !== undefined) document.thresholds.set(threshold, kind === "threshold_reached");
    if (count === 0 && kind === "document_left") {
      this.documents.delete(doc);
      this.order.documents.remove(doc);
    }
  }
}

export function lastSeen(person) {
  let last = 0;
  for (const { last_seen_ms = 0 } of person.addresses.values()) last = Math.max(last, last_seen_ms);
  return last;
}

/** The address that a person used last. */
export function newest(person) {
  let found = ["", {}];
  for (const [ip, address] of person.addresses) {
    if (!found[1].last_seen_ms || address.last_seen_ms > found[1].last_seen_ms) found = [ip, address];
  }
  return { ip: found[0], ...found[1] };
}
