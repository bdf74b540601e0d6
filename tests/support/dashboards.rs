//! The dashboards in `grafana/`, as far as tests need them.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// A dashboard and the name of its file without the ending.
pub struct Dashboard {
    pub name: String,
    pub json: Value,
}

/// A file or folder in `grafana/`.
pub fn path(below: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("grafana").join(below)
}

/// The text of a file in `grafana/`.
pub fn text(below: &str) -> String {
    fs::read_to_string(path(below)).unwrap()
}

/// The names of a folder's files with this ending, without it.
pub fn names(folder: &str, ending: &str) -> Vec<String> {
    let files = fs::read_dir(path(folder)).unwrap().map(|file| file.unwrap().file_name());
    let name = |file: std::ffi::OsString| Some(file.to_str()?.strip_suffix(ending)?.to_owned());
    let mut names: Vec<_> = files.filter_map(name).collect();
    names.sort();
    names
}

/// All dashboards.
pub fn all() -> Vec<Dashboard> {
    let read = |name: String| {
        let json = serde_json::from_str(&text(&format!("dashboards/{name}.json"))).unwrap();
        Dashboard { name, json }
    };
    names("dashboards", ".json").into_iter().map(read).collect()
}

impl Dashboard {
    pub fn panels(&self) -> &[Value] {
        self.json["panels"].as_array().unwrap()
    }

    /// The expressions of its panels, each with the panel's title.
    pub fn expressions(&self) -> Vec<(&str, &str)> {
        self.panels().iter().flat_map(expressions).collect()
    }
}

fn expressions(panel: &Value) -> impl Iterator<Item = (&str, &str)> {
    let targets = panel["targets"].as_array().map_or(&[][..], Vec::as_slice);
    targets.iter().map(|target| (text_of(panel, "title"), text_of(target, "expr")))
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == ':'
}

/// The metrics in an expression with their matchers, and the text before each.
pub fn selectors(expression: &str) -> Vec<(&str, &str)> {
    let starts = expression.match_indices(|c: char| c.is_ascii_lowercase()).map(|(start, _)| start);
    let selector = |start| {
        let (before, rest) = expression.split_at(start);
        let name = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        let ours = rest.starts_with("rollcall_") || rest.starts_with("process_");
        let braces = rest[name..].starts_with('{').then(|| rest.find('}')).flatten();
        let end = braces.map_or(name, |brace| brace + 1);
        (ours && !before.ends_with(is_word)).then(|| (before, &rest[..end]))
    };
    starts.filter_map(selector).collect()
}

/// A member, or an element, that is text.
pub fn text_of<I: serde_json::value::Index>(value: &Value, member: I) -> &str {
    value[member].as_str().unwrap_or_else(|| panic!("no such text in {value}"))
}
