//! `openapi.json` and the schema of changes list the event types and kinds of changes that the code has.

use rollcall::change::ChangeKind;
use rollcall::event::TYPES;
use serde_json::Value;

/// Every list of allowed words in a document.
fn enums(value: &Value) -> Vec<Vec<&str>> {
    let (own, inner): (_, Vec<&Value>) = match value {
        Value::Object(members) => (members.get("enum"), members.values().collect()),
        Value::Array(elements) => (None, elements.iter().collect()),
        _ => return Vec::new(),
    };
    let own = own.and_then(Value::as_array).map(|words| words.iter().filter_map(Value::as_str));
    let own = own.map(Iterator::collect);
    own.into_iter().chain(inner.into_iter().flat_map(enums)).collect()
}

/// Those that have this word.
fn with<'d>(document: &'d Value, word: &str) -> Vec<Vec<&'d str>> {
    enums(document).into_iter().filter(|words| words.contains(&word)).collect()
}

#[test]
fn openapi_lists_every_event_type_and_every_kind_of_change() {
    let text = std::fs::read(super::directory().join("openapi.json")).unwrap();
    let document: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(with(&document, "heartbeat"), [TYPES, TYPES]);
    let kinds: Vec<_> = ChangeKind::ALL.iter().map(|kind| kind.name()).collect();
    assert_eq!(with(&document, "document_joined"), [kinds.clone(), kinds.clone()]);
    // An erased change is reported, never recorded.
    let recorded: Vec<_> = kinds.into_iter().filter(|kind| *kind != "erased").collect();
    let schema = &super::schemas()["state/change"];
    assert_eq!(schema["properties"]["kind"]["enum"], Value::from(recorded));
}
