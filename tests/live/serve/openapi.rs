//! The OpenAPI document and the routes agree.

use std::collections::BTreeSet;

use rollcall::telemetry::metrics::ROUTES;
use serde_json::Value;

use super::Served;

fn document() -> Value {
    serde_json::from_str(rollcall::schema::OPENAPI).unwrap()
}

#[test]
fn every_route_is_in_the_document_with_its_methods_and_no_other() {
    let served = Served::start(&[], &[]);
    let document = document();
    let paths = document["paths"].as_object().unwrap();
    // Endless answers are requested in a way that is refused.
    let stranger = served.client.with("Origin", "https://other.example");
    for (path, item) in paths {
        // An identifier of nothing in particular.
        let place = path.find('{').map_or(path.clone(), |at| {
            format!("{}x{}", &path[..at], path[path.find('}').unwrap() + 1..].to_owned())
        });
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
            let described = item.get(method.to_lowercase()).is_some();
            let status = stranger.request(method, &place, "").status;
            assert_eq!(status != 405, described, "{method} {path} says {status}");
        }
    }
    let described: BTreeSet<&str> = paths.keys().map(String::as_str).collect();
    let routes: BTreeSet<&str> =
        ROUTES.iter().map(|(path, _)| *path).filter(|path| *path != BESIDE).collect();
    assert_eq!(described, routes);
    assert_eq!(served.client.get("/api/v1/openapi.json").json(), document);
}

/// OpenAPI cannot describe it.
const BESIDE: &str = "/socket.io/";

#[test]
fn every_reference_of_the_document_leads_somewhere() {
    fn check(value: &Value, document: &Value) {
        match value {
            Value::Object(members) => {
                if let Some(reference) = members.get("$ref").and_then(Value::as_str) {
                    let pointer = reference.strip_prefix('#').unwrap();
                    assert!(document.pointer(pointer).is_some(), "{reference}");
                }
                members.values().for_each(|value| check(value, document));
            }
            Value::Array(items) => items.iter().for_each(|value| check(value, document)),
            _ => {}
        }
    }
    let document = document();
    check(&document, &document);
    let operations = document["paths"]
        .as_object()
        .unwrap()
        .values()
        .flat_map(|item| item.as_object().unwrap().values());
    let mut ids: Vec<_> =
        operations.map(|operation| operation["operationId"].as_str().unwrap().to_owned()).collect();
    let count = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), count);
}
