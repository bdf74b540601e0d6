//! The files of `schemas/`, for `rollcall schema`.
//!
//! A test compares the names with the files, so none can be missing.

/// The OpenAPI document of what `serve` answers.
pub const OPENAPI: &str = include_str!("../schemas/openapi.json");

/// Name and text of every schema, of the AsyncAPI document that ties them together, and of the OpenAPI document.
pub const SCHEMAS: &[(&str, &str)] = &[
    ("openapi", OPENAPI),
    ("asyncapi", include_str!("../schemas/asyncapi.yaml")),
    ("events/heartbeat", include_str!("../schemas/events/heartbeat.json")),
    ("events/login", include_str!("../schemas/events/login.json")),
    ("events/logout", include_str!("../schemas/events/logout.json")),
    ("events/view", include_str!("../schemas/events/view.json")),
    ("events/session", include_str!("../schemas/events/session.json")),
    ("events/document", include_str!("../schemas/events/document.json")),
    ("events/members", include_str!("../schemas/events/members.json")),
    ("events/event", include_str!("../schemas/events/event.json")),
    ("events/cloudevent", include_str!("../schemas/events/cloudevent.json")),
    ("events/packed", include_str!("../schemas/events/packed.json")),
    ("entries/flat", include_str!("../schemas/entries/flat.json")),
    ("entries/enveloped", include_str!("../schemas/entries/enveloped.json")),
    ("state/presence", include_str!("../schemas/state/presence.json")),
    ("state/session", include_str!("../schemas/state/session.json")),
    ("state/change", include_str!("../schemas/state/change.json")),
    ("state/dead-letter", include_str!("../schemas/state/dead-letter.json")),
];
