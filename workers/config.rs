//! `rollcall config check` and `rollcall config print`: the settings and where each comes from. Passwords are never
//! printed.

use rollcall::config::settings::Settings;
use rollcall::config::{
    Config, ConfigError, Definition, Flags, Gathered, Kind, Origin, TraceConfig, definitions,
};

/// What to do with the settings.
#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print ok, or name the wrong setting and the remedy
    Check(Flags<Settings>),
    /// Print every setting as TOML, with the source of its value
    Print(Flags<Settings>),
}

impl ConfigCommand {
    /// The answer of the command.
    ///
    /// # Errors
    /// If the settings cannot be used.
    pub(crate) fn answer(&self) -> Result<String, ConfigError> {
        let (Self::Check(flags) | Self::Print(flags)) = self;
        let gathered = flags.gather()?;
        let config = Config::resolve(&gathered)?;
        TraceConfig::from_variables(|name| std::env::var_os(name))?;
        Ok(match self {
            Self::Check(_) => check(&gathered),
            Self::Print(_) => print(&gathered, &config),
        })
    }
}

fn check(gathered: &Gathered) -> String {
    let (mut flags, mut variables, mut lines) = (0, 0, 0);
    for key in gathered.keys() {
        match gathered.origin(key) {
            Origin::Flag => flags += 1,
            Origin::Env(_) => variables += 1,
            Origin::File { .. } => lines += 1,
            Origin::Default => {}
        }
    }
    let defaults = definitions().len() - flags - variables - lines;
    format!(
        "ok: {flags} by flag, {variables} by environment, {lines} by file, {defaults} by default\n"
    )
}

fn print(gathered: &Gathered, config: &Config) -> String {
    let mut text = String::new();
    let mut heading = "";
    for definition in definitions() {
        if definition.heading != heading {
            let gap = if heading.is_empty() { "" } else { "\n" };
            heading = &definition.heading;
            text += &format!("{gap}# {heading}\n");
        }
        text += &line(definition, gathered, config);
        text.push('\n');
    }
    let targets = gathered.targets_shown();
    if !targets.is_empty() {
        text += &format!("\n# Notifier\n{targets}");
    }
    text
}

/// One setting. A line that must not be read back is a comment.
fn line(definition: &Definition, gathered: &Gathered, config: &Config) -> String {
    let key = &definition.key;
    let origin = gathered.origin(key);
    let derived = || match key.as_str() {
        "name" => Some(config.name.clone()),
        _ => None,
    };
    let text = gathered.shown(definition).or_else(derived);
    match text {
        None => format!("# {key} = \"\"  # not set"),
        Some(text) if definition.kind == Kind::Secret => format!("# {key} = {text:?}  # {origin}"),
        Some(text) => format!("{key} = {}  # {origin}", value(definition.kind, text)),
    }
}

fn value(kind: Kind, text: String) -> String {
    match text.parse::<u64>() {
        Ok(number) if kind == Kind::Number => number.to_string(),
        _ => toml::Value::String(text).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(flags: &[(&str, &str)]) -> (String, Config) {
        let gathered = Gathered::from_flags(flags.iter().copied()).unwrap();
        let config = Config::resolve(&gathered).unwrap();
        (print(&gathered, &config), config)
    }

    #[test]
    fn what_is_printed_can_be_read_back() {
        let (text, config) = printed(&[
            ("batch", "007"),
            ("prefix", "a\"b\\c:"),
            ("takeover", "9s"),
            ("thresholds", "100:80,10:5"),
            ("projections", "documents,online"),
        ]);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &text).unwrap();
        let mut gathered = Gathered::default();
        gathered.add_file(file.path(), Origin::Flag).unwrap();
        let again = Config::resolve(&gathered).unwrap();
        assert_eq!(format!("{config:?}"), format!("{again:?}"));
        assert!(text.contains("batch = 7  # flag\n"), "{text}");
        assert!(text.contains("keep = \"1h\"  # default\n"), "{text}");
        assert!(text.contains("# redis-username = \"\"  # not set\n"), "{text}");
    }

    #[test]
    fn passwords_are_never_printed() {
        let (text, config) = printed(&[("redis-password", "hunter2")]);
        assert!(text.contains("# redis-password = \"***\"  # flag\n"), "{text}");
        let (url, _) = printed(&[("redis-url", "redis://alice:hunter2@localhost")]);
        assert!(url.contains("redis-url = \"redis://alice:***@localhost\"  # flag\n"), "{url}");
        assert!(!format!("{text}{url}{config:?}").contains("hunter2"));
    }

    #[test]
    fn a_check_counts_what_was_set_where() {
        let gathered = Gathered::from_flags([("batch", "10"), ("keep", "2h")]).unwrap();
        let text = check(&gathered);
        assert!(text.starts_with("ok: 2 by flag, 0 by environment, 0 by file, "), "{text}");
    }
}
