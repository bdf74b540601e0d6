//! The scripts: what each consists of, how it is loaded, and how it is called.
//!
//! Each is a function of a library of its own: the server compiles its text once, and a call creates no closures.
//! Both names end in a hash of the text, so versions can exist side by side. If functions are unavailable (no right,
//! renamed commands, full memory), the same text is called as a script by its digest.

use std::collections::HashMap;
use std::sync::LazyLock;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{Arg, Cmd, RedisError, RedisResult, Value};

use crate::redis::reply;

const COMMON: &str = include_str!("common.lua");
const TORN: &str = include_str!("torn.lua");
/// The merges of the apply script, one file for each structure.
const MERGE: [&str; 5] = [
    include_str!("merge.lua"),
    include_str!("merge_presence.lua"),
    include_str!("merge_tokens.lua"),
    include_str!("merge_sessions.lua"),
    include_str!("merge_documents.lua"),
];
const APPLY: &str = include_str!("apply.lua");
const GROUPS: &str = include_str!("groups.lua");
const SWEEP: &str = include_str!("sweep.lua");
const OWNER: &str = include_str!("owner.lua");
const POSITION: &str = include_str!("position.lua");
const CURSOR: &str = include_str!("cursor.lua");
const LOSSES: &str = include_str!("losses.lua");
const NOTIFY: &str = include_str!("notify.lua");
const ERASE: &str = include_str!("erase.lua");

/// The beginning of the names of all libraries, of any version.
const LIBRARIES: &str = "rollcall_";

/// Which script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Script {
    /// Merges a batch.
    Apply,
    /// Removes what is stale.
    Sweep,
    /// Ownership of the partition.
    Owner,
    /// Looks for entries that were lost.
    Losses,
    /// Publishes changes to a target.
    Notify,
    /// Removes one user.
    Erase,
}

/// How a script is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// As the function of a library (`FCALL`).
    Function,
    /// By its digest (`EVALSHA`).
    Digest,
}

impl Way {
    pub(super) fn command(self) -> &'static str {
        match self {
            Self::Function => "FCALL",
            Self::Digest => "EVALSHA",
        }
    }
}

/// A script in both forms.
#[derive(Debug)]
struct Text {
    /// The name of the library and of its one function.
    function: String,
    library: String,
    digest: String,
    script: String,
}

impl Text {
    fn new(script: Script) -> Self {
        let body = script.body();
        let function = format!(
            "{LIBRARIES}{}_{}",
            script.label(),
            &redis::Script::new(&body).get_hash()[..12]
        );
        // Even at full memory a partition must change hands.
        let (flags, flag) = match script {
            Script::Owner => (" flags=allow-oom", "'allow-oom'"),
            _ => ("", ""),
        };
        let library = format!(
            "#!lua name={function}\n{body}\nredis.register_function{{\n  function_name = '{function}',\n  \
             flags = {{ {flag} }},\n  callback = function(...) begin(...) return run() end,\n}}\n"
        );
        let script = format!("#!lua{flags}\n{}", called(&body));
        let digest = redis::Script::new(&script).get_hash().to_owned();
        Self { function, library, digest, script }
    }
}

impl Script {
    /// The scripts that workers, janitors, notifiers and `erase` run, in the order of their texts.
    pub(crate) const ALL: [Self; 6] =
        [Self::Apply, Self::Sweep, Self::Owner, Self::Losses, Self::Notify, Self::Erase];
    /// The doctor's own: which commands this user may send.
    pub(crate) const RIGHTS: &str = include_str!("rights.lua");

    fn body(self) -> String {
        match self {
            Self::Apply => {
                [COMMON, GROUPS, POSITION, CURSOR, TORN, &MERGE.join("\n"), APPLY].join("\n")
            }
            Self::Sweep => [COMMON, TORN, GROUPS, SWEEP].join("\n"),
            Self::Owner => [COMMON, GROUPS, POSITION, CURSOR, OWNER].join("\n"),
            Self::Losses => [COMMON, GROUPS, LOSSES].join("\n"),
            Self::Notify => NOTIFY.to_owned(),
            Self::Erase => [COMMON, GROUPS, POSITION, ERASE].join("\n"),
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::Apply => "apply",
            Self::Sweep => "sweep",
            Self::Owner => "owner",
            Self::Losses => "losses",
            Self::Notify => "notify",
            Self::Erase => "erase",
        }
    }

    fn text(self) -> &'static Text {
        static TEXTS: LazyLock<[Text; 6]> = LazyLock::new(|| Script::ALL.map(Text::new));
        &TEXTS[self as usize]
    }

    pub(super) fn name(self, way: Way) -> &'static str {
        match way {
            Way::Function => &self.text().function,
            Way::Digest => &self.text().digest,
        }
    }

    /// A function call as a call of the script by its digest.
    pub(super) fn by_digest(self, call: &Cmd) -> Cmd {
        let mut same = redis::cmd(Way::Digest.command());
        same.arg(self.name(Way::Digest));
        for argument in call.args_iter().skip(2) {
            if let Arg::Simple(bytes) = argument {
                same.arg(bytes);
            }
        }
        same
    }

    /// Loads the script (`FUNCTION LOAD`, `SCRIPT LOAD`).
    ///
    /// # Errors
    /// If the server refuses it.
    pub(crate) async fn load(
        self,
        connection: &mut MultiplexedConnection,
        way: Way,
    ) -> RedisResult<()> {
        let Text { library, script, .. } = self.text();
        let (command, text) = match way {
            Way::Function => ("FUNCTION", library),
            Way::Digest => ("SCRIPT", script),
        };
        match redis::cmd(command).arg("LOAD").arg(text).exec_async(connection).await {
            // Another process was faster.
            Err(error) if error.to_string().contains("already exists") => Ok(()),
            loaded => loaded,
        }
    }
}

/// A script of an operator's command. It is called seldom, so always by its digest.
pub(super) struct Seldom(LazyLock<(String, &'static str)>);

/// Adds dead letters' entries again.
pub(super) static LETTERS: Seldom = Seldom(LazyLock::new(|| digested(include_str!("letters.lua"))));
/// Adds entries of another layout.
pub(super) static FORWARD: Seldom = Seldom(LazyLock::new(|| digested(include_str!("forward.lua"))));
/// Moves state to another layout.
pub(super) static REPARTITION: Seldom =
    Seldom(LazyLock::new(|| digested(include_str!("repartition.lua"))));
/// Reads at one instant.
pub(super) static LOOK: Seldom = Seldom(LazyLock::new(|| digested(include_str!("look.lua"))));
/// Replaces session data by a token.
pub(super) static ENCRYPT: Seldom = Seldom(LazyLock::new(|| digested(include_str!("encrypt.lua"))));

/// Repairs single members of the state.
pub(super) static MEND: Seldom = Seldom(LazyLock::new(|| {
    let body = [COMMON, GROUPS, POSITION, CURSOR, include_str!("mend.lua")].join("\n");
    digested(format!("#!lua\n{}", called(&body)).leak())
}));
/// Changes the settings of a deployment.
pub(super) static SETTINGS: Seldom =
    Seldom(LazyLock::new(|| digested(include_str!("settings.lua"))));

/// The body as a script of its own, with its own names for these two.
fn called(body: &str) -> String {
    format!("local keys, arguments = KEYS, ARGV\n{body}\nbegin(keys, arguments)\nreturn run()\n")
}

fn digested(text: &'static str) -> (String, &'static str) {
    (redis::Script::new(text).get_hash().to_owned(), text)
}

impl Seldom {
    /// A call up to the number of its keys.
    pub(super) fn call(&self) -> Cmd {
        let mut call = redis::cmd(Way::Digest.command());
        call.arg(&self.0.0);
        call
    }

    /// The same for a script that only reads; its callers need no right to write its keys.
    pub(super) fn read(&self) -> Cmd {
        let mut call = redis::cmd("EVALSHA_RO");
        call.arg(&self.0.0);
        call
    }

    /// Sends a call, and repeats it if the script had to be loaded first.
    pub(super) async fn send(
        &self,
        connection: &mut (impl ConnectionLike + Send),
        call: &Cmd,
    ) -> RedisResult<Value> {
        match call.query_async(connection).await {
            Err(error) if error.code() == Some("NOSCRIPT") => {
                let load = ["LOAD", self.0.1];
                redis::cmd("SCRIPT").arg(&load).exec_async(connection).await?;
                call.query_async(connection).await
            }
            reply => reply,
        }
    }
}

/// Whether the server does not have the called function.
pub(super) fn is_missing(error: &RedisError) -> bool {
    error.to_string().contains("Function not found")
}

/// Whether functions cannot be called here although scripts may be: the user lacks the right, or the command was
/// renamed.
pub(super) fn refuses_functions(error: &RedisError) -> bool {
    let text = error.to_string().to_lowercase();
    let is_denied = error.code() == Some("NOPERM") || text.contains("unknown command");
    is_denied && text.contains("'fcall'")
}

/// Removes the libraries of other versions (`FUNCTION DELETE`); returns how many. A process that still uses one loads
/// it again.
///
/// # Errors
/// If the server refuses, or no reply came.
pub async fn drop_others(connection: &mut MultiplexedConnection) -> RedisResult<usize> {
    let mut list = redis::cmd("FUNCTION");
    list.arg("LIST").arg("LIBRARYNAME").arg(format!("{LIBRARIES}*"));
    let libraries: Vec<HashMap<String, Value>> = list.query_async(connection).await?;
    let own = Script::ALL.map(|script| script.name(Way::Function));
    let mut dropped = 0;
    for mut library in libraries {
        let Some(name) = library.remove("library_name").and_then(reply::text) else {
            continue;
        };
        if !own.contains(&name.as_str()) {
            redis::cmd("FUNCTION").arg("DELETE").arg(&name).exec_async(connection).await?;
            dropped += 1;
        }
    }
    Ok(dropped)
}
