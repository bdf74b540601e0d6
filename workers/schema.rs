//! `schema`: the schemas of events and state in `schemas/`.

use rollcall::schema::SCHEMAS;
use serde::Serialize;

use crate::query::{Answer, Output, QueryError, show};
use crate::table::Page;

/// Print the schemas of events and state (JSON Schema 2020-12), the AsyncAPI or the OpenAPI document.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Schema {
    /// Which one to print; without it, the names are listed
    name: Option<String>,
    #[command(flatten)]
    output: Output,
}

impl Schema {
    /// Lists the names, or prints one.
    pub(crate) fn run(&self) -> Result<(), QueryError> {
        let Some(name) = &self.name else {
            return show(&Names(SCHEMAS.iter().map(|(name, _)| *name).collect()), &self.output);
        };
        let wanted = name.trim_end_matches(".json").trim_end_matches(".yaml");
        let found = SCHEMAS.iter().find(|(name, _)| *name == wanted);
        let (name, text) = found.ok_or_else(|| QueryError::NoSchema { name: name.clone() })?;
        show(&Text { name, text }, &self.output)
    }
}

#[derive(Serialize)]
struct Names(Vec<&'static str>);

impl Answer for Names {
    fn show(&self, page: &mut Page) {
        for name in &self.0 {
            page.line(name);
        }
    }
}

#[derive(Serialize)]
struct Text {
    name: &'static str,
    text: &'static str,
}

impl Answer for Text {
    fn show(&self, page: &mut Page) {
        page.line(self.text.trim_end());
    }
}
