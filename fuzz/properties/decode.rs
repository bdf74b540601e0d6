//! Any entry at all: what must hold of the events it is decoded to, of the plan they are folded to, and
//! of the dead letters.
//!
//! The input is text as far as it can be, so that one can read and write it: a line of words, then
//! `name=value` lines, then, after an empty line, the bytes of a last field `data`. The words: the
//! entry's id, `small` for limits that short inputs reach, `partition=2` for one partition of four.

use std::sync::LazyLock;

use rollcall::config::{Config, Gathered};
use rollcall::decode::erase::{Share, Theirs, rest};
use rollcall::decode::{Decoded, Rejected, Rules, decode, decode_with_unknown_names};
use rollcall::entry::{Entry, EntryId};
use rollcall::event::{Event, Kind, Limits, Name, Session, SessionAction};
use rollcall::fold::{Avoided, FoldSettings, Planner};
use rollcall::format::{Format, MAX_DEPTH, Member, is_opaque};
use rollcall::key::{Keys, partition_of};
use rollcall::op::{Letter, Plan};
use rollcall::projection::Projections;
use rollcall::redis::scripts::apply::Applier;
use rollcall::redis::scripts::owner::Tenure;
use rollcall::state::dead::{DeadLetter, HEADER};
use rollcall::time::EventTime;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

/// What a detail for people may have at most.
const DETAIL_BYTES: usize = 512;
const PARTITIONS: u16 = 4;

static APPLIER: LazyLock<Applier> = LazyLock::new(|| {
    let config = Config::resolve(&Gathered::default()).expect("the defaults are possible");
    let [epoch, owner, term, fence] = Default::default();
    let tenure = Tenure { epoch, owner, term, fence };
    Applier::new(&config.deployment, &Keys::new("", 1, 0), tenure)
});

/// Panics unless everything holds of the entry that `input` describes.
pub fn holds(input: &[u8]) {
    let (entry, settings) = read(input);
    let (rules, partition) = (&settings.rules, settings.partition);
    let decoded = decode(&entry, partition, rules);
    assert_eq!(decoded, decode(&entry.clone(), partition, rules), "decoded otherwise again");
    check_unknown(&decoded, decode_with_unknown_names(&entry, partition, rules));
    check_counts(&decoded, &rules.limits);
    decoded.events.iter().for_each(|event| check_event(event, &entry, &settings));
    decoded.rejected.iter().for_each(|rejected| check_rejected(rejected, &entry));
    check_plan(&decoded, &entry, &settings);
    check_erased(&decoded, &entry, &settings);
    check_json(entry.get(b"data").unwrap_or_default());
}

// ---- the input

fn read(input: &[u8]) -> (Entry, FoldSettings) {
    let (words, rest) = cut(input, b"\n");
    let (id, settings) = read_words(&String::from_utf8_lossy(words));
    let (lines, data) = match rest.strip_prefix(b"\n") {
        Some(data) => (&b""[..], Some(data)),
        None if rest.windows(2).any(|two| two == b"\n\n") => {
            let (lines, data) = cut(rest, b"\n\n");
            (lines, Some(data))
        }
        None => (rest, None),
    };
    let field = |line| {
        let (name, value) = cut(line, b"=");
        (name.to_vec(), value.to_vec())
    };
    let lines = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let mut fields: Vec<_> = lines.map(field).collect();
    fields.extend(data.map(|data| (b"data".to_vec(), data.to_vec())));
    (Entry::new(id, fields), settings)
}

fn cut<'i>(input: &'i [u8], at: &[u8]) -> (&'i [u8], &'i [u8]) {
    match input.windows(at.len()).position(|window| window == at) {
        Some(position) => (&input[..position], &input[position + at.len()..]),
        None => (input, b""),
    }
}

fn read_words(words: &str) -> (EntryId, FoldSettings) {
    let mut id = EntryId { ms: 1_790_000_001_000, seq: 0 };
    let rules = Rules {
        limits: Limits::default(),
        max_skew_ms: 60_000,
        partitions: 1,
        moved_from: Vec::new(),
    };
    let mut settings = FoldSettings { rules, projections: Projections::all(), partition: 0 };
    for word in words.split(' ') {
        if word == "small" {
            settings.rules.limits = Limits {
                max_identifier_bytes: 8,
                max_field_bytes: 32,
                max_data_bytes: 256,
                max_fields: 8,
                max_events: 5,
            };
        } else if let Some(number) = word.strip_prefix("partition=") {
            settings.rules.partitions = PARTITIONS;
            settings.partition = number.parse().map_or(0, |n: u16| n % PARTITIONS);
        } else if let Ok(given) = word.parse() {
            id = given;
        }
    }
    (id, settings)
}

// ---- what is decoded

fn check_counts(Decoded { form, events, rejected, .. }: &Decoded<'_>, limits: &Limits) {
    assert!(events.len() + rejected.len() <= limits.max_events.max(1), "more than may be packed");
    let whole = rejected.iter().any(|rejected| rejected.element.is_none());
    assert_eq!(form.is_none(), whole, "what is not rejected whole has a form");
    if whole {
        assert_eq!((events.len(), rejected.len()), (0, 1), "rejected whole, and not");
    }
    let positions = || rejected.iter().filter_map(|rejected| Some(rejected.element?.0));
    assert!(positions().is_sorted_by(|a, b| a < b), "elements out of order");
}

/// Without one user's events the others' are left, as they were, whatever the ids of the entries that hold them.
fn check_erased(decoded: &Decoded<'_>, entry: &Entry, settings: &FoldSettings) {
    let (rules, partition) = (&settings.rules, settings.partition);
    let later = EntryId { ms: entry.id.ms.saturating_add(900_000), seq: 0 };
    for event in decoded.events.iter().take(3) {
        let user = event.kind.user().to_string();
        let mut theirs = Theirs::new(&user);
        theirs.share(entry, rules, partition);
        // Now their sessions are known.
        let share = theirs.share(entry, rules, partition);
        let is_theirs = |kind: &Kind<'_>| match kind {
            Kind::Session(Session { sid, user, .. }) if user == Session::UNKNOWN_USER => {
                *theirs.user == **user || theirs.sids.contains(&**sid)
            }
            kind => **kind.user() == *theirs.user,
        };
        let others = decoded.events.iter().filter(|event| !is_theirs(&event.kind));
        let others: Vec<_> = others.map(|event| (event.time, event.kind.clone())).collect();
        let left: Vec<Entry> = match share {
            Share::None => panic!("{user:?} has an event here"),
            Share::All => Vec::new(),
            Share::Some(data) => {
                let fields = rest(entry, data, rules, partition).into_iter();
                fields.map(|fields| Entry::new(later, fields)).collect()
            }
        };
        let again: Vec<_> = left
            .iter()
            .flat_map(|entry| decode(entry, partition, rules).events)
            .map(|event| (event.time, event.kind))
            .collect();
        assert_eq!(again, others, "without {user:?}");
        for entry in &left {
            assert_eq!(theirs.clone().share(entry, rules, partition), Share::None, "{entry:?}");
        }
    }
}

/// To ask for the names of unknown members changes nothing else.
fn check_unknown(decoded: &Decoded<'_>, mut named: Decoded<'_>) {
    for event in &mut named.events {
        let names = event.unknown.names.take().expect("they were asked for");
        assert_eq!(names.is_empty(), event.unknown.count == 0, "{names:?}");
        assert!(names.len() <= event.unknown.count as usize, "more than there are: {names:?}");
        assert!(names.iter().all(|name| name.len() <= DETAIL_BYTES), "{names:?}");
    }
    assert_eq!(*decoded, named);
}

fn check_event(event: &Event<'_>, entry: &Entry, settings: &FoldSettings) {
    let Rules { limits, max_skew_ms, partitions, .. } = &settings.rules;
    let latest = EventTime::from_millis(entry.id.ms.saturating_add(*max_skew_ms));
    assert!((EventTime::MIN..=latest).contains(&event.time), "a time out of bounds: {event:?}");
    let parts = Parts::of(&event.kind);
    for id in parts.ids {
        assert!((1..=limits.max_identifier_bytes).contains(&id.len()), "identifier {id:?}");
    }
    for id in parts.optional_ids {
        assert!(id.len() <= limits.max_identifier_bytes, "identifier {id:?}");
    }
    for text in parts.texts {
        // Each byte that is not UTF-8 becomes the three of U+FFFD.
        assert!(text.len() <= limits.max_field_bytes * 3, "text {text:?}");
    }
    if let Some(data) = parts.data {
        check_session_data(data, entry, limits);
    }
    if let Kind::Session(session) = &event.kind
        && let Some(ttl) = session.ttl
    {
        assert!((1..=Session::MAX_TTL).contains(&ttl), "a session's ttl of {ttl} s");
    }
    if *partitions > 1 {
        let right = partition_of(event.kind.routing_id(), *partitions);
        assert_eq!(right, settings.partition, "in a foreign partition: {event:?}");
        assert_eq!(event.kind.clone().without_foreign_parts(), event.kind);
    }
}

/// The texts of an event by what bounds them.
#[derive(Default)]
struct Parts<'e> {
    ids: Vec<&'e str>,
    optional_ids: Vec<&'e str>,
    texts: Vec<&'e str>,
    data: Option<&'e [u8]>,
}

impl<'e> Parts<'e> {
    fn of(kind: &'e Kind<'_>) -> Self {
        let mut parts = Self::default();
        match kind {
            Kind::Heartbeat(event) => {
                parts.ids.push(&event.user);
                let given = [&event.token, &event.sid, &event.doc].into_iter().flatten();
                parts.ids.extend(given.map(AsRef::<str>::as_ref));
                parts.optional_ids.extend([&*event.ip, &event.connection]);
                parts.texts.extend([&*event.ua, &event.page]);
            }
            Kind::Login(event) => {
                parts.ids.extend([&*event.user, &event.token]);
                parts.ids.extend(event.sid.as_deref());
                parts.optional_ids.push(&event.ip);
                parts.texts.push(&event.ua);
            }
            Kind::Logout(event) => {
                parts.ids.push(&event.user);
                let given = [&event.ip, &event.token, &event.sid].into_iter().flatten();
                parts.ids.extend(given.map(AsRef::<str>::as_ref));
            }
            Kind::View(event) => parts.ids.extend([&*event.user, &event.token, &event.item]),
            Kind::Session(event) => {
                parts.ids.extend([&*event.sid, &event.user]);
                parts.optional_ids.push(&event.ip);
                parts.texts.push(&event.ua);
                if let SessionAction::Update(data) = &event.action {
                    parts.data = data.as_deref();
                }
            }
            Kind::Document(event) => {
                parts.ids.extend([&*event.doc, &event.user]);
                parts.optional_ids.push(&event.connection);
            }
        }
        parts
    }
}

/// Of a flat entry a session's data is kept byte for byte, and is JSON if it is not declared as opaque.
fn check_session_data(data: &[u8], entry: &Entry, limits: &Limits) {
    assert!((1..=limits.max_data_bytes).contains(&data.len()), "session data {data:?}");
    let is_flat = entry.get(b"type") == Some(b"session") && entry.get(b"sid").is_some();
    if !is_flat {
        return;
    }
    let is_opaque = entry.get(b"datacontenttype").is_some_and(is_opaque);
    assert!(is_opaque || Member::flat(data).json().is_ok(), "session data {data:?}");
    let sent = entry.get(b"data");
    assert!(sent.is_none_or(|sent| sent == data), "{data:?} is not what was sent: {sent:?}");
}

fn check_rejected(Rejected { rejection, element }: &Rejected<'_>, entry: &Entry) {
    let detail = &rejection.detail;
    assert!(detail.len() <= DETAIL_BYTES, "{} bytes: {detail}", detail.len());
    assert!(!detail.contains(char::is_control), "{detail:?}");
    let names = Name::ALL.iter().map(|name| name.name()).chain(["entry", "field", "event"]);
    assert!(names.into_iter().any(|name| detail.contains(name)), "names nothing: {detail}");
    if let Some((_, bytes)) = element {
        let data = entry.get(b"data").expect("an element stands in data");
        assert!(data.as_ptr_range().contains(&bytes.as_ptr()), "an element from elsewhere");
        assert!(!bytes.is_empty() && bytes.len() < data.len());
    }
}

/// JSON is taken, and an object is cut into its members, as by serde_json.
fn check_json(text: &[u8]) {
    let is_json =
        std::str::from_utf8(text).is_ok() && serde_json::from_slice::<IgnoredAny>(text).is_ok();
    match Member::flat(text).json() {
        Ok(_) => assert!(is_json, "taken, and is no JSON"),
        Err(error) => {
            let too_deep = error.to_string().contains(&format!("nested deeper than {MAX_DEPTH}"));
            assert!(!is_json || too_deep, "JSON, and not taken: {error}");
        }
    }
    let Ok(expected) = serde_json::from_slice::<Map<String, Value>>(text) else { return };
    let mut found = Map::new();
    let cut = Format::Json.members(text, |name, member| {
        let json = member.json().expect("a member of what is JSON");
        let value: Value = serde_json::from_str(&json).expect("what is cut out is JSON");
        if let Some(text) = value.as_str() {
            assert_eq!(member.value().expect("it has no broken escapes"), text.as_bytes());
        }
        found.insert(String::from_utf8(name.to_vec()).expect("it was UTF-8"), value);
    });
    assert_eq!(cut.map(|()| found), Ok(expected));
}

// ---- what is folded

fn check_plan(decoded: &Decoded<'_>, entry: &Entry, settings: &FoldSettings) {
    let mut planner = Planner::new(settings);
    planner.add(entry, &Avoided::default());
    let plan = planner.finish(&Avoided::default());
    assert_eq!((plan.entries, plan.last), (1, Some(entry.id)), "not passed once");
    check_merges(&decoded.events, &plan, entry, settings);
    check_letters(&plan.letters, decoded, entry, &settings.rules.limits);
    check_call(&plan, decoded, entry);
}

/// Merges are commutative and idempotent; counts and letters go with the cursor, once.
fn check_merges<'a>(events: &[Event<'a>], plan: &Plan<'a>, entry: &Entry, settings: &FoldSettings) {
    let mut merged = Plan::default();
    for event in events.iter().rev().chain(events) {
        settings.projections.fold(event, entry.id.ms, &mut merged);
    }
    merged.views.clone_from(&plan.views);
    merged.letters.clone_from(&plan.letters);
    (merged.entries, merged.last) = (plan.entries, plan.last);
    assert_eq!(&merged, plan, "order or repetition matters");
}

/// Dead letters carry the original pairs, and do not multiply large ones.
fn check_letters(letters: &[Letter<'_>], decoded: &Decoded<'_>, entry: &Entry, limits: &Limits) {
    assert_eq!(letters.len(), decoded.rejected.len());
    let owned = |(name, value): (&[u8], &[u8])| (name.to_vec(), value.to_vec());
    for (letter, rejected) in letters.iter().zip(&decoded.rejected) {
        let mut fields: Vec<_> = entry.fields().map(owned).collect();
        if let Some((_, bytes)) = rejected.element {
            let data = fields.iter_mut().rfind(|(name, _)| name == b"data");
            data.expect("an element stands in data").1 = bytes.to_vec();
        }
        let header = HEADER.iter().map(|name| (name.as_bytes().to_vec(), Vec::new()));
        let original = letter.fields.iter().copied().map(owned);
        let written = Entry::new(letter.id, header.chain(original));
        let read = DeadLetter::read(&written).expect("it begins as a dead letter");
        assert_eq!((read.id, read.fields), (entry.id, fields), "the original pairs");
    }
    let size = |letter: &Letter<'_>| -> usize {
        letter.fields.iter().map(|(name, value)| name.len() + value.len()).sum()
    };
    let bytes: usize = letters.iter().map(size).sum();
    assert!(bytes <= entry.size() + limits.max_data_bytes, "{bytes} bytes of letters");
}

/// What one entry makes the server take is bounded by the entry: a text of an event stands in up to
/// four places, where JSON writes a byte as up to six.
fn check_call(plan: &Plan<'_>, decoded: &Decoded<'_>, entry: &Entry) {
    let empty = APPLIER.call(&Plan::default(), entry.id).get_packed_command().len();
    let bytes = APPLIER.call(plan, entry.id).get_packed_command().len() - empty;
    let rows = decoded.events.len() + decoded.rejected.len() * (entry.fields().len() + 1);
    let bound = entry.size() * 24 + rows * 1024;
    assert!(bytes <= bound, "{bytes} bytes from an entry of {}: {plan:?}", entry.size());
}
