//! The schemas in `schemas/` and the decoder, checked against each other both ways.
//!
//! Everything is read from the files as producers find them; references resolve inside the directory, never over the
//! network. A schema and the decoder must agree about each event, for the examples and for random events, in each of
//! the ways to write an entry. If JSON Schema cannot express what the decoder requires (bytes, depth, syntax),
//! `examples/beyond-schema` shows it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod openapi;
mod random;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonschema::{Registry, Validator};
use rollcall::event::TYPES;
use rollcall::format::is_opaque;
use serde_json::{Map, Value, json};

/// Decodes an entry with these fields: how many events it contains, or why it (or its first bad element) is rejected.
/// The only place that uses the decoder.
fn decode(fields: &[(&[u8], &[u8])]) -> Result<usize, &'static str> {
    crate::support::decode_reason(fields)
}

type Outcome = Result<usize, String>;
type Object = Map<String, Value>;

// ---- the files ----

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas")
}

/// The JSON files in a folder, sorted, by name without the last extension.
fn files(folder: &str) -> Vec<(String, Vec<u8>)> {
    let path = directory().join(folder);
    let listing = fs::read_dir(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut files: Vec<_> = listing
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .map(|path| {
            (path.file_stem().unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap())
        })
        .collect();
    files.sort();
    files
}

/// Every schema by its name, such as `events/heartbeat`.
fn schemas() -> BTreeMap<String, Value> {
    let mut schemas = BTreeMap::new();
    for folder in ["events", "entries", "state"] {
        for (name, text) in files(folder) {
            let schema = serde_json::from_slice(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
            schemas.insert(format!("{folder}/{name}"), schema);
        }
    }
    schemas
}

/// A validator for every schema. References resolve among them and nowhere else.
fn validators() -> BTreeMap<String, Validator> {
    let schemas = schemas();
    let mut registry = Registry::new();
    for schema in schemas.values() {
        registry = registry.add(schema["$id"].as_str().unwrap(), schema.clone()).unwrap();
    }
    let registry = registry.prepare().unwrap();
    let options = jsonschema::options().offline().with_registry(&registry);
    let build = |(name, schema): (&String, &Value)| {
        let validator = options.build(schema).unwrap_or_else(|e| panic!("{name}: {e}"));
        (name.clone(), validator)
    };
    schemas.iter().map(build).collect()
}

/// An example: `<schema>-<what it shows>`, and `.<reason>` if it is rejected.
struct Example {
    name: String,
    schema: String,
    raw: Vec<u8>,
}

impl Example {
    /// The examples in a folder, for schemas of any of these kinds.
    fn all(folder: &str, kinds: &[&str]) -> Vec<Self> {
        let schemas = schemas();
        let find = |name: &str| {
            let fits = |schema: &&String| {
                let (kind, subject) = schema.split_once('/').unwrap();
                kinds.contains(&kind) && name.starts_with(&format!("{subject}-"))
            };
            let schema = schemas.keys().find(fits);
            schema.unwrap_or_else(|| panic!("{name}: no schema has this beginning")).clone()
        };
        let files = files(&format!("examples/{folder}")).into_iter();
        files.map(|(name, raw)| Self { schema: find(&name), name, raw }).collect()
    }

    fn of_events(folder: &str) -> Vec<Self> {
        Self::all(folder, &["events", "entries"])
    }

    fn reason(&self) -> &str {
        self.name.rsplit_once('.').unwrap_or_else(|| panic!("{}: no .reason", self.name)).1
    }

    fn value(&self) -> Value {
        serde_json::from_slice(&self.raw).unwrap_or_else(|e| panic!("{}: {e}", self.name))
    }

    /// The event type it is an example of, if it is one event.
    fn event_type(&self) -> Option<&str> {
        self.schema.strip_prefix("events/").filter(|name| TYPES.contains(name))
    }

    /// The decoder's results for it, in each of the ways to write it.
    fn outcomes(&self) -> Vec<(&'static str, Outcome)> {
        let value = self.value();
        if self.schema.starts_with("entries/") {
            return vec![("entry", decode_entry(value.as_object().unwrap()))];
        }
        if self.event_type().is_some() {
            return decode_every_way(&value);
        }
        vec![("JSON", decode_json(&value)), ("MessagePack", decode_msgpack(&value))]
    }
}

/// Panics if a schema has fewer examples than it should.
fn assert_enough(examples: &[Example], least: usize) {
    for schema in schemas().into_keys().filter(|name| !name.starts_with("state/")) {
        if schema != "events/members" && schema != "events/event" {
            let count = examples.iter().filter(|example| example.schema == schema).count();
            assert!(count >= least, "{schema} has {count} examples");
        }
    }
}

// ---- the ways to write an entry ----

fn decode_entry(fields: &Object) -> Outcome {
    let bytes = |(name, value)| {
        let (name, value): (&String, &Value) = (name, value);
        (name.as_bytes(), value.as_str().unwrap().as_bytes())
    };
    decode(&fields.iter().map(bytes).collect::<Vec<_>>()).map_err(str::to_owned)
}

fn decode_data(data: &[u8]) -> Outcome {
    decode(&[(b"data", data)]).map_err(str::to_owned)
}

fn decode_json(value: &Value) -> Outcome {
    decode_data(value.to_string().as_bytes())
}

/// As MessagePack. What is `invalid_json` in JSON is `invalid_msgpack` here; both get one name, to be compared.
fn decode_msgpack(value: &Value) -> Outcome {
    let data = rmp_serde::to_vec(value).unwrap();
    let outcome = decode(&[(b"datacontenttype", b"application/msgpack"), (b"data", &data)]);
    outcome.map_err(|reason| reason.replace("invalid_msgpack", "invalid_json"))
}

/// The event as flat fields, unless something in it would become valid by becoming text.
fn flat(event: &Object) -> Option<Object> {
    let is_session = event.get("type").is_some_and(|kind| kind == "session");
    let media_type = event.get("datacontenttype").and_then(Value::as_str);
    let is_opaque = media_type.is_some_and(|media_type| is_opaque(media_type.as_bytes()));
    let mut fields = Object::new();
    for (name, value) in event {
        let text = match (name.as_str(), value) {
            (_, Value::Null) => String::new(),
            ("data", value) if value == "" => String::new(),
            ("data", Value::String(text)) if is_session && is_opaque => text.clone(),
            ("data", value) if is_session => value.to_string(),
            (_, Value::String(text)) => text.clone(),
            ("time" | "ttl", Value::Number(number)) => number.to_string(),
            _ => return None,
        };
        fields.insert(name.clone(), text.into());
    }
    Some(fields)
}

/// The attributes of a CloudEvent, and the content of its `data`.
fn cloudevent_parts(event: &Object) -> (Object, Object) {
    let is_attribute = |(name, _): &(String, Value)| ["type", "time"].contains(&name.as_str());
    let (mut attributes, data): (Object, Object) =
        event.clone().into_iter().partition(is_attribute);
    for (name, value) in [("specversion", "1.0"), ("id", "e-1"), ("source", "/edge/3")] {
        attributes.insert(name.into(), value.into());
    }
    (attributes, data)
}

/// The decoder's results for one event in each of the ways to write it, by the way's name.
fn decode_every_way(event: &Value) -> Vec<(&'static str, Outcome)> {
    let packed = json!([event]);
    let mut outcomes = vec![
        ("JSON", decode_json(event)),
        ("MessagePack", decode_msgpack(event)),
        ("packed JSON", decode_json(&packed)),
        ("packed MessagePack", decode_msgpack(&packed)),
    ];
    let Some(event) = event.as_object() else { return outcomes };
    if let Some(fields) = flat(event) {
        outcomes.push(("flat", decode_entry(&fields)));
    }
    let (attributes, data) = cloudevent_parts(event);
    let text = Value::Object(data.clone()).to_string();
    if let Some(fields) = flat(&attributes) {
        let with = |name: &str, value: String| {
            let mut fields = fields.clone();
            fields.insert(name.into(), value.into());
            decode_entry(&fields)
        };
        outcomes.push(("binary CloudEvent", with("data", text.clone())));
        outcomes.push(("binary CloudEvent, encoded twice", with("data", json!(text).to_string())));
        outcomes.push(("binary CloudEvent in base64", with("data_base64", STANDARD.encode(&text))));
    }
    let with = |name: &str, value: Value| {
        let mut structured = attributes.clone();
        structured.insert(name.into(), value);
        Value::Object(structured)
    };
    let whole = with("data", Value::Object(data));
    outcomes.push(("structured CloudEvent", decode_json(&whole)));
    outcomes.push(("structured CloudEvent in MessagePack", decode_msgpack(&whole)));
    let with_text = with("data", text.clone().into());
    outcomes.push(("structured CloudEvent with a text", decode_json(&with_text)));
    outcomes.push(("the same in MessagePack", decode_msgpack(&with_text)));
    let with_base64 = with("data_base64", STANDARD.encode(&text).into());
    outcomes.push(("structured CloudEvent with base64", decode_json(&with_base64)));
    outcomes.push(("packed CloudEvent with base64", decode_json(&json!([with_base64]))));
    outcomes
}

// ---- the schemas themselves ----

#[test]
fn every_schema_is_a_valid_schema_of_2020_12_with_its_place_as_id() {
    for (name, schema) in schemas() {
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema", "{name}");
        assert_eq!(schema["$id"], format!("https://rollcall.example/schemas/{name}.json"));
        assert!(schema["description"].is_string(), "{name}");
        if let Err(error) = jsonschema::meta::validate(&schema) {
            panic!("{name}: {error}");
        }
    }
    assert_eq!(validators().len(), schemas().len());
}

#[test]
fn rollcall_schema_prints_every_file() {
    let printed = rollcall::schema::SCHEMAS.iter().map(|(name, _)| (*name).to_owned());
    let files = schemas().into_keys().chain(["asyncapi", "openapi"].map(str::to_owned));
    assert_eq!(printed.collect::<BTreeSet<_>>(), files.collect::<BTreeSet<_>>());
}

// ---- the examples ----

#[test]
fn valid_examples_fit_their_schema_and_decode() {
    let validators = validators();
    let examples = Example::of_events("valid");
    for example in &examples {
        let value = example.value();
        if let Err(error) = validators[&example.schema].validate(&value) {
            panic!("{} does not fit {}: {error}", example.name, example.schema);
        }
        let in_data = || serde_json::from_str::<Value>(value["data"].as_str()?).ok();
        let packed = value.as_array().cloned().or_else(|| in_data()?.as_array().cloned());
        let events = packed.map_or(1, |events| events.len());
        for (way, outcome) in example.outcomes() {
            assert_eq!(outcome, Ok(events), "{} as {way}", example.name);
        }
    }
    assert_enough(&examples, 5);
}

#[test]
fn invalid_examples_fail_their_schema_and_are_rejected_for_the_reason_in_their_name() {
    let validators = validators();
    let examples = Example::of_events("invalid");
    for example in &examples {
        let fits = validators[&example.schema].is_valid(&example.value());
        assert!(!fits, "{} fits {}", example.name, example.schema);
        for (way, outcome) in example.outcomes() {
            assert_eq!(outcome, Err(example.reason().into()), "{} as {way}", example.name);
        }
    }
    assert_enough(&examples, 8);
}

#[test]
fn what_json_schema_cannot_express_is_rejected_all_the_same() {
    let validators = validators();
    for example in Example::of_events("beyond-schema") {
        let value: Option<Value> = serde_json::from_slice(&example.raw).ok();
        if let Some(value) = &value {
            let fits = validators[&example.schema].is_valid(value);
            assert!(fits, "{} belongs in invalid/", example.name);
        }
        let outcome = match value {
            Some(Value::Object(fields)) if example.schema.starts_with("entries/") => {
                decode_entry(&fields)
            }
            _ => decode_data(&example.raw),
        };
        assert_eq!(outcome, Err(example.reason().into()), "{}", example.name);
    }
}

#[test]
fn reasons_are_those_of_dead_letters() {
    let schema = &schemas()["state/dead-letter"];
    let reasons = schema["properties"]["reason"]["enum"].as_array().unwrap();
    for folder in ["invalid", "beyond-schema"] {
        for example in Example::of_events(folder) {
            assert!(reasons.contains(&example.reason().into()), "{}", example.name);
        }
    }
}

#[test]
fn an_event_fits_exactly_one_type() {
    let validators = validators();
    for example in Example::of_events("valid") {
        let Some(event_type) = example.event_type() else { continue };
        let value = example.value();
        let fits = |name: &&str| validators[&format!("events/{name}")].is_valid(&value);
        let fitting: Vec<_> = TYPES.iter().copied().filter(fits).collect();
        assert_eq!(fitting, [event_type], "{}", example.name);
        assert!(validators["events/event"].is_valid(&value), "{}", example.name);
    }
}

#[test]
fn a_thousand_events_fit_in_one_entry_and_no_more() {
    let validators = validators();
    for (count, outcome) in [(1000, Ok(1000)), (1001, Err("too_many_events".to_owned()))] {
        let packed = Value::from(vec![json!({"type": "heartbeat", "user": "alice"}); count]);
        assert_eq!(validators["events/packed"].is_valid(&packed), outcome.is_ok());
        assert_eq!(decode_json(&packed), outcome);
        assert_eq!(decode_msgpack(&packed), outcome);
    }
}

#[test]
fn state_examples_fit_their_schema_or_not() {
    let validators = validators();
    for (folder, expected) in [("state/valid", true), ("state/invalid", false)] {
        for example in Example::all(folder, &["state"]) {
            let fits = validators[&example.schema].is_valid(&example.value());
            assert_eq!(fits, expected, "{} and {}", example.name, example.schema);
        }
    }
}

// ---- asyncapi.yaml ----

/// A line of YAML with a key: the keys that lead to it, and the text after the colon.
struct Line {
    path: String,
    value: String,
}

/// The lines of `asyncapi.yaml` with a key. Reads only as much YAML as is used there.
fn asyncapi() -> Vec<Line> {
    let text = fs::read_to_string(directory().join("asyncapi.yaml")).unwrap();
    let mut open: Vec<(usize, &str)> = Vec::new();
    let mut lines = Vec::new();
    for line in text.lines() {
        let content = line.trim_start_matches([' ', '-']);
        let indent = line.len() - content.len();
        let Some((key, value)) = content.split_once(':') else { continue };
        open.retain(|(outer, _)| *outer < indent);
        open.push((indent, key));
        let path = open.iter().map(|(_, key)| *key).collect::<Vec<_>>().join("/");
        lines.push(Line { path, value: value.trim().trim_matches('\'').to_owned() });
    }
    lines
}

#[test]
fn asyncapi_refers_to_what_exists_and_to_every_payload() {
    let lines = asyncapi();
    let mut referred = BTreeSet::new();
    for Line { path, value } in lines.iter().filter(|line| line.path.ends_with("$ref")) {
        match value.strip_prefix("#/") {
            Some(local) => assert!(lines.iter().any(|line| line.path == local), "{path}: {value}"),
            None => assert!(directory().join(value).is_file(), "{path}: {value}"),
        }
        referred.insert(value.trim_start_matches("./").trim_end_matches(".json"));
    }
    // The values of keys are no payloads; event and members are parts of the others.
    let others = ["events/event", "events/members", "state/presence", "state/session"];
    for schema in schemas().keys().filter(|name| !others.contains(&name.as_str())) {
        assert!(referred.contains(schema.as_str()), "{schema}");
    }
}

#[test]
fn examples_in_asyncapi_fit_the_payload_they_stand_beside() {
    let validators = validators();
    let (mut payload, mut examples) = (String::new(), 0);
    for Line { path, value } in asyncapi() {
        if path.ends_with("payload/$ref") {
            value.trim_start_matches("./").trim_end_matches(".json").clone_into(&mut payload);
        } else if path.ends_with("examples/payload") {
            let example: Value = serde_json::from_str(&value).expect("one line of JSON");
            assert!(validators[&payload].is_valid(&example), "{payload}: {value}");
            examples += 1;
        }
    }
    assert!(examples >= 12, "{examples}");
}
