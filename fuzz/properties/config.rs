//! The text of any settings file: what must hold of the configuration, or of the error.
//!
//! The first byte says where a password is put that must never show: `1` and `2` as a setting before and
//! after the text; `3` behind a user's name, and `4` behind `pass=`, in a URL whose parts before and behind
//! it are the first two lines. The rest of the input is the file.

use std::collections::BTreeSet;
use std::path::Path;

use rollcall::config::{Config, ConfigError, Gathered, Origin, definitions};

const PASSWORD: &str = "hunter2-of-the-file";
const FILE: &str = "rollcall.toml";
/// The one file that a text may name: there is no such file. (What it names is opened.)
const PASSWORD_FILE: &str = "nowhere";

/// Panics unless everything holds of the file that `input` describes.
pub fn holds(input: &[u8]) {
    let Some(text) = file(input) else { return };
    let mut gathered = Gathered::default();
    let added = gathered.add_toml(&text, Path::new(FILE));
    check_shown(&format!("{gathered:?}"));
    for definition in definitions() {
        let shown = gathered.shown(definition).unwrap_or_default();
        check_shown(&shown);
        if definition.key == "redis-password-file" && !["", PASSWORD_FILE].contains(&&*shown) {
            return;
        }
    }
    match added.and_then(|()| Config::resolve(&gathered)) {
        Ok(config) => check_config(&config),
        Err(error) => check_error(&error, &text),
    }
}

fn file(input: &[u8]) -> Option<String> {
    let (first, text) = std::str::from_utf8(input).ok()?.split_at_checked(1)?;
    if text.contains(PASSWORD) {
        return None;
    }
    Some(match first {
        "1" => format!("redis-password = \"{PASSWORD}\"\n{text}"),
        "2" => format!("{text}\nredis-password = \"{PASSWORD}\""),
        "3" | "4" => {
            let (before, rest) = text.split_once('\n')?;
            let (behind, rest) = rest.split_once('\n').unwrap_or((rest, ""));
            let url = match first {
                "4" if before.contains('?') => format!("{before}&pass={PASSWORD}{behind}"),
                // Elsewhere it would be a query or the path of a socket, and show.
                "3" if !before.contains('?') && is_tcp(before) => {
                    format!("{before}:{PASSWORD}{behind}")
                }
                _ => return None,
            };
            format!("redis-url = '{url}'\n{rest}")
        }
        _ => text.to_owned(),
    })
}

fn is_tcp(url: &str) -> bool {
    ["redis://", "rediss://", "valkey://", "valkeys://"]
        .iter()
        .any(|scheme| url.starts_with(scheme))
}

fn check_shown(text: &str) {
    assert!(!text.contains(PASSWORD), "the password shows: {text}");
}

fn check_config(config: &Config) {
    check_shown(&format!("{config:?}"));
    let Config { deployment, worker, janitor, .. } = config;
    assert!(worker.takeover < worker.batch_deadline());
    assert!(janitor.keep_ms <= janitor.horizon_ms);
    assert!(deployment.limits.max_identifier_bytes <= deployment.limits.max_field_bytes);
    assert!(deployment.thresholds.iter().all(|threshold| threshold.down < threshold.up));
    // What is written to the server leads back to the same settings.
    let fields = deployment.meta_fields();
    let prefix = ("prefix", deployment.prefix.clone());
    let again = Gathered::from_flags(fields.into_iter().chain([prefix]));
    let again = again.and_then(|gathered| Config::resolve(&gathered));
    assert_eq!(&again.expect("its own texts are possible").deployment, deployment);
}

fn check_error(error: &ConfigError, text: &str) {
    let said = error.to_string();
    check_shown(&format!("{said} {error:?}"));
    assert!(said.len() <= 800, "{} bytes: {said}", said.len());
    assert!(!said.contains(char::is_control), "more than a line: {said:?}");
    let lines = text.bytes().filter(|byte| *byte == b'\n').count() + 1;
    let check_line = |line: usize| assert!((1..=lines).contains(&line), "{said}");
    let check_origin = |origin: &Origin| match origin {
        Origin::File { line, .. } => check_line(*line),
        Origin::Default => {}
        Origin::Flag | Origin::Env(_) => panic!("neither flag nor variable: {said}"),
    };
    let names: BTreeSet<&str> = definitions().iter().map(|d| d.key.as_str()).collect();
    match error {
        ConfigError::Unknown { name, origin, nearest } => {
            assert!(!names.contains(name.as_str()), "{said}");
            assert!(nearest.iter().all(|name| names.contains(name.as_str())), "{said}");
            check_origin(origin);
        }
        ConfigError::Refused { setting, origin, why, .. } => {
            assert!(names.contains(setting) && said.starts_with(setting) && !why.is_empty());
            check_origin(origin);
        }
        ConfigError::Syntax { line, message, .. } => {
            assert!(!message.is_empty());
            check_line(*line);
        }
        ConfigError::Unreadable { setting, origin, .. } => {
            assert_eq!(*setting, "redis-password-file");
            check_origin(origin);
        }
        other => panic!("{other:?}"),
    }
}
