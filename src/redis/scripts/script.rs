//! The scripts themselves: what each consists of, how the server gets to know it, and how it is called.
//!
//! Each is a function of a library of its own: the server compiles its text once, and a call makes no closures. The
//! names of both end in a hash of the text, so that versions live side by side. Where functions are not to be had (no
//! right to, renamed commands, memory that is full), the same text is called as a script by its digest.

use std::collections::HashMap;
use std::sync::LazyLock;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{Arg, Cmd, RedisError, RedisResult, Value};

use crate::redis::reply;

const COMMON: &str = include_str!("common.lua");
const TORN: &str = include_str!("torn.lua");
/// What the apply script merges, a file for each structure.
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

/// What the names of all libraries begin with, whatever their version.
const LIBRARIES: &str = "rollcall_";

/// Which script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Script {
    /// Merges a batch.
    Apply,
    /// Takes away what is stale.
    Sweep,
    /// Shares out the partition.
    Owner,
    /// Looks for entries that were lost.
    Losses,
    /// Tells a target of changes.
    Notify,
    /// Takes out what is one user's.
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
    /// Of the library, and of its one function.
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
        // At full memory a partition must still change hands.
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
    /// All that workers, janitors and notifiers run, and whoever erases, in the order of their texts.
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

    /// A call of the function as one of the script by its digest.
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

    /// Makes the server know the script (`FUNCTION LOAD`, `SCRIPT LOAD`).
    ///
    /// # Errors
    /// If the server does not take it.
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
            // Another one was faster.
            Err(error) if error.to_string().contains("already exists") => Ok(()),
            loaded => loaded,
        }
    }
}

/// A script of an operator's command: seldom called, so by its digest.
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
/// Puts a token in the place of session data.
pub(super) static ENCRYPT: Seldom = Seldom(LazyLock::new(|| digested(include_str!("encrypt.lua"))));

/// Puts single members of the state right.
pub(super) static MEND: Seldom = Seldom(LazyLock::new(|| {
    let body = [COMMON, GROUPS, POSITION, CURSOR, include_str!("mend.lua")].join("\n");
    digested(format!("#!lua\n{}", called(&body)).leak())
}));
/// Changes the settings of a deployment.
pub(super) static SETTINGS: Seldom =
    Seldom(LazyLock::new(|| digested(include_str!("settings.lua"))));

/// The body as a script by itself; it has names of its own for these two.
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

    /// The same of a script that only reads: whoever calls it needs no right to write its keys.
    pub(super) fn read(&self) -> Cmd {
        let mut call = redis::cmd("EVALSHA_RO");
        call.arg(&self.0.0);
        call
    }

    /// Sends a call, and once more where the script had to be loaded first.
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

/// Whether the server does not have the function that was called.
pub(super) fn is_missing(error: &RedisError) -> bool {
    error.to_string().contains("Function not found")
}

/// Whether functions cannot be called here, while scripts may be: this user may not, or the command was renamed.
pub(super) fn refuses_functions(error: &RedisError) -> bool {
    let text = error.to_string().to_lowercase();
    let is_denied = error.code() == Some("NOPERM") || text.contains("unknown command");
    is_denied && text.contains("'fcall'")
}

/// Takes away the libraries of other versions (`FUNCTION DELETE`); returns how many. Who still uses one loads it again.
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
