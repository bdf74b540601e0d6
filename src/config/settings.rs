//! Every setting, defined once: its flag, environment variable, key in the file, type and range, default and help.
//!
//! The three sources give text, and the same parsers read it, so a flag, a variable and a line of the file can never
//! mean different things. Commands combine the groups: a query takes few flags, `run` all of them.

use std::path::PathBuf;

use clap::Args;

use super::duration::{Millis, at_least, whole_minutes};
use super::serve::{Buffer, Listen, Networks, Origins, RateLimitSetting, rate_limit};
use super::url::{RedisUrl, Secret};
use super::values::{Http, LogFormat, Thresholds};
use super::values::{log_filter, name, number, prefix};
use crate::key::MOST_PARTITIONS;
use crate::projection::Projections;

/// Where Redis is.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Redis")]
pub struct ConnectionArgs {
    /// Server: redis://host:port/db, rediss:// for TLS, unix:/path, a master through its sentinels:
    /// redis+sentinel://host:26379,host:26379/master/db, or a Cluster through some of its nodes:
    /// redis+cluster://host:6379,host:6379; in a password, write # ? / @ % as %23 %3F %2F %40 %25
    #[arg(long, env = "ROLLCALL_REDIS_URL", value_name = "URL")]
    #[arg(default_value = "redis://127.0.0.1:6379")]
    pub redis_url: RedisUrl,
    /// User to log in as, if not in the URL
    #[arg(long, env = "ROLLCALL_REDIS_USERNAME", value_name = "USER")]
    pub redis_username: Option<String>,
    /// Password, if not in the URL; other users of the machine can see flags, so prefer the variable
    #[arg(long, env = "ROLLCALL_REDIS_PASSWORD", value_name = "PASSWORD")]
    pub redis_password: Option<Secret>,
    /// File with the password, read for each new connection; one newline at its end is ignored
    #[arg(long, env = "ROLLCALL_REDIS_PASSWORD_FILE", value_name = "FILE")]
    pub redis_password_file: Option<PathBuf>,
    /// File of the authorities trusted for TLS, instead of the system's (PEM; read for each new connection)
    #[arg(long, env = "ROLLCALL_REDIS_TLS_CA", value_name = "FILE")]
    pub redis_tls_ca: Option<PathBuf>,
    /// File of the client certificate for TLS, with its chain (PEM; read for each new connection)
    #[arg(long, env = "ROLLCALL_REDIS_TLS_CERT", value_name = "FILE")]
    pub redis_tls_cert: Option<PathBuf>,
    /// File of the client certificate's private key (PEM, without a passphrase; read for each new connection)
    #[arg(long, env = "ROLLCALL_REDIS_TLS_KEY", value_name = "FILE")]
    pub redis_tls_key: Option<PathBuf>,
    /// Name that the server's certificate must carry [default: the host that is connected to]
    #[arg(long, env = "ROLLCALL_REDIS_TLS_NAME", value_name = "NAME")]
    pub redis_tls_name: Option<String>,
}

/// Which keys belong to the deployment.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Keys")]
pub struct KeyArgs {
    /// Prefix of every key, one per tenant; on a Cluster with one partition it must be a hash tag such as {acme}:
    #[arg(long, env = "ROLLCALL_PREFIX", value_name = "TEXT")]
    #[arg(default_value = "", value_parser = prefix)]
    pub prefix: String,
    /// Number of partitions of stream and state (1 to 1024); `rollcall repartition` changes it later
    #[arg(long, env = "ROLLCALL_PARTITIONS", value_name = "N")]
    #[arg(default_value = "1", value_parser = number::<u16, 1, { MOST_PARTITIONS as u64 }>)]
    pub partitions: u16,
}

/// Where events come from.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Stream")]
pub struct StreamArgs {
    /// Stream of events, after the prefix
    #[arg(long, env = "ROLLCALL_STREAM", value_name = "NAME")]
    #[arg(default_value = "rollcall:events", value_parser = name)]
    pub stream: String,
    /// Consumer group that shows the workers' position
    #[arg(long, env = "ROLLCALL_GROUP", value_name = "NAME")]
    #[arg(default_value = "rollcall", value_parser = name)]
    pub group: String,
}

/// Which state is kept, for how long and how much of it: the same in the whole deployment.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "State (the same in the whole deployment)")]
pub struct StateArgs {
    /// Which state to keep: all, or names separated by commas
    #[arg(long, env = "ROLLCALL_PROJECTIONS", value_name = "NAMES", default_value = "all")]
    pub projections: Projections,
    /// Report when the number of a document's users reaches up, and when it falls to down: up:down pairs such as
    /// 10:5,100:80, or none
    #[arg(long, env = "ROLLCALL_THRESHOLDS", value_name = "PAIRS", default_value = "none")]
    pub thresholds: Thresholds,
    /// How far an event's time may be ahead of its entry's time (a duration)
    #[arg(long, env = "ROLLCALL_MAX_SKEW", value_name = "DURATION", default_value = "60s")]
    pub max_skew: Millis,
    /// How long the users seen in each minute are kept (whole minutes, 1m to 24h)
    #[arg(long, env = "ROLLCALL_ONLINE_WINDOW", value_name = "DURATION")]
    #[arg(default_value = "5m", value_parser = whole_minutes)]
    pub online_window: Millis,
    /// How long a user stays present after they were last seen (a duration, at least 1s)
    #[arg(long, env = "ROLLCALL_PRESENCE_TTL", value_name = "DURATION")]
    #[arg(default_value = "300s", value_parser = at_least::<1_000>)]
    pub presence_ttl: Millis,
    /// How long a session lasts after its last activity (a duration, at least 1s)
    #[arg(long, env = "ROLLCALL_SESSION_TTL", value_name = "DURATION")]
    #[arg(default_value = "1800s", value_parser = at_least::<1_000>)]
    pub session_ttl: Millis,
    /// How long a user stays in a document after the last join (a duration, at least 1s)
    #[arg(long, env = "ROLLCALL_DOCUMENT_TTL", value_name = "DURATION")]
    #[arg(default_value = "1800s", value_parser = at_least::<1_000>)]
    pub document_ttl: Millis,
    /// Recent tokens kept per partition
    #[arg(long, env = "ROLLCALL_RECENT_CAP", value_name = "N")]
    #[arg(default_value = "1000000", value_parser = cap)]
    pub recent_cap: u64,
    /// Viewed items kept per token
    #[arg(long, env = "ROLLCALL_VIEWED_CAP", value_name = "N")]
    #[arg(default_value = "25", value_parser = cap)]
    pub viewed_cap: u64,
    /// Items kept in the ranking per partition
    #[arg(long, env = "ROLLCALL_RANKING_CAP", value_name = "N")]
    #[arg(default_value = "20000", value_parser = cap)]
    pub ranking_cap: u64,
    /// Dead letters kept per partition
    #[arg(long, env = "ROLLCALL_DEAD_CAP", value_name = "N")]
    #[arg(default_value = "100000", value_parser = cap)]
    pub dead_cap: u64,
    /// Changes kept per partition
    #[arg(long, env = "ROLLCALL_CHANGES_CAP", value_name = "N")]
    #[arg(default_value = "100000", value_parser = cap)]
    pub changes_cap: u64,
}

/// At least 1: a structure is switched off with `--projections`. The maximum keeps counts exact in Lua's doubles.
fn cap(text: &str) -> Result<u64, super::ValueError> {
    number::<u64, 1, 1_000_000_000>(text)
}

/// How large entries may be: the same in the whole deployment.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Limits (the same in the whole deployment)")]
pub struct LimitArgs {
    /// Maximum length of an identifier, in bytes
    #[arg(long, env = "ROLLCALL_MAX_IDENTIFIER_BYTES", value_name = "BYTES")]
    #[arg(default_value = "256", value_parser = number::<usize, 1, 65_536>)]
    pub max_identifier_bytes: usize,
    /// Maximum length of a field's name or value, in bytes
    #[arg(long, env = "ROLLCALL_MAX_FIELD_BYTES", value_name = "BYTES")]
    #[arg(default_value = "16384", value_parser = number::<usize, 1, 16_777_216>)]
    pub max_field_bytes: usize,
    /// Maximum length of the data of an entry or a session, in bytes
    #[arg(long, env = "ROLLCALL_MAX_DATA_BYTES", value_name = "BYTES")]
    #[arg(default_value = "1048576", value_parser = number::<usize, 1, 67_108_864>)]
    pub max_data_bytes: usize,
    /// Maximum number of fields in an entry
    #[arg(long, env = "ROLLCALL_MAX_FIELDS", value_name = "N")]
    #[arg(default_value = "64", value_parser = number::<usize, 2, 1024>)]
    pub max_fields: usize,
    /// Maximum number of events in a packed entry
    #[arg(long, env = "ROLLCALL_MAX_EVENTS", value_name = "N")]
    #[arg(default_value = "1000", value_parser = number::<usize, 1, 10_000>)]
    pub max_events: usize,
}

/// How a worker reads and applies.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Worker")]
pub struct WorkerArgs {
    /// Maximum number of entries in a batch (1 to 5000)
    #[arg(long, env = "ROLLCALL_BATCH", value_name = "N")]
    #[arg(default_value = "500", value_parser = number::<usize, 1, 5_000>)]
    pub batch: usize,
    /// How long a partition's owner may show no progress before another worker takes over (at least 1s)
    #[arg(long, env = "ROLLCALL_TAKEOVER", value_name = "DURATION")]
    #[arg(default_value = "3s", value_parser = at_least::<1_000>)]
    pub takeover: Millis,
    /// Number of workers that watch each partition besides its owner
    #[arg(long, env = "ROLLCALL_STANDBYS", value_name = "N")]
    #[arg(default_value = "1", value_parser = number::<usize, 1, 100>)]
    pub standbys: usize,
}

/// How session data is encrypted.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Sessions")]
pub struct SealArgs {
    /// File of Fernet keys for session data, one per line: the first encrypts, all decrypt; reloaded when it changes
    #[arg(long, env = "ROLLCALL_SESSION_KEY_FILE", value_name = "FILE")]
    pub session_key_file: Option<PathBuf>,
}

/// How a janitor sweeps.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Janitor")]
pub struct JanitorArgs {
    /// Pause between two rounds (a duration, at least 100ms)
    #[arg(long, env = "ROLLCALL_JANITOR_INTERVAL", value_name = "DURATION")]
    #[arg(default_value = "1s", value_parser = at_least::<100>)]
    pub janitor_interval: Millis,
    /// How long finished entries stay in the stream (a duration)
    #[arg(long, env = "ROLLCALL_KEEP", value_name = "DURATION", default_value = "1h")]
    pub keep: Millis,
    #[command(flatten)]
    #[allow(missing_docs, reason = "the group says what it is")]
    pub endings: EndingArgs,
}

/// How long endings are remembered.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Janitor")]
pub struct EndingArgs {
    /// How long the end of a token or session is remembered (a duration, at least --keep)
    #[arg(long, env = "ROLLCALL_HORIZON", value_name = "DURATION", default_value = "24h")]
    pub horizon: Millis,
}

/// How applications and browsers are served, and who may do what.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Serve")]
pub struct ServeArgs {
    /// Address for applications and browsers; auto: 127.0.0.1 and the first free port of 8484-8493; or off
    /// [default: 127.0.0.1:8484; run and demo: auto]
    #[arg(long, env = "ROLLCALL_LISTEN", value_name = "ADDRESS")]
    pub listen: Option<Listen>,
    /// File of bearer tokens, one per line, that may read the state, the live feed and all rooms
    #[arg(long, env = "ROLLCALL_READ_TOKEN_FILE", value_name = "FILE")]
    pub read_token_file: Option<PathBuf>,
    /// File of bearer tokens, one per line, that may send events and end sessions
    #[arg(long, env = "ROLLCALL_WRITE_TOKEN_FILE", value_name = "FILE")]
    pub write_token_file: Option<PathBuf>,
    /// File of the key for JSON Web Tokens: PEM for RS256, ES256 or EdDSA, otherwise a secret for HS256
    #[arg(long, env = "ROLLCALL_JWT_KEY_FILE", value_name = "FILE")]
    pub jwt_key_file: Option<PathBuf>,
    /// Origins whose pages may call: scheme and host, separated by commas, or none
    #[arg(long, env = "ROLLCALL_CORS_ORIGIN", value_name = "ORIGINS", default_value = "none")]
    pub cors_origin: Origins,
    /// Proxies whose X-Forwarded-For or Forwarded is believed: addresses or ranges separated by commas, or none
    #[arg(long, env = "ROLLCALL_TRUSTED_PROXIES", value_name = "RANGES", default_value = "none")]
    pub trusted_proxies: Networks,
    /// Events that one client may send per second, and in a burst, such as 50:200; or off
    #[arg(long, env = "ROLLCALL_RATE_LIMIT", value_name = "RATE:BURST")]
    #[arg(default_value = "off", value_parser = rate_limit)]
    pub rate_limit: RateLimitSetting,
    /// How long an event waits for others to be packed with it (a duration, at most 1s)
    #[arg(long, env = "ROLLCALL_LINGER", value_name = "DURATION", default_value = "10ms")]
    pub linger: Millis,
    /// How much may wait while Redis is unreachable: events, bytes, and how long
    #[arg(long, env = "ROLLCALL_BUFFER", value_name = "EVENTS,BYTES,DURATION")]
    #[arg(default_value = "100000,64MiB,10s")]
    pub buffer: Buffer,
    /// Minimum time between two activities of the same subject (a duration, at least 100ms)
    #[arg(long, env = "ROLLCALL_ACTIVITY_INTERVAL", value_name = "DURATION")]
    #[arg(default_value = "1s", value_parser = at_least::<100>)]
    pub activity_interval: Millis,
    /// Maximum number of activities sent to a room per second
    #[arg(long, env = "ROLLCALL_ACTIVITY_RATE", value_name = "N")]
    #[arg(default_value = "500", value_parser = number::<u64, 1, 1_000_000>)]
    pub activity_rate: u64,
    /// Maximum number of open connections
    #[arg(long, env = "ROLLCALL_MAX_CONNECTIONS", value_name = "N")]
    #[arg(default_value = "20000", value_parser = number::<usize, 1, 1_000_000>)]
    pub max_connections: usize,
    /// Maximum number of open connections from one address; those of trusted proxies do not count
    #[arg(long, env = "ROLLCALL_MAX_CLIENT_CONNECTIONS", value_name = "N")]
    #[arg(default_value = "1000", value_parser = number::<usize, 1, 1_000_000>)]
    pub max_client_connections: usize,
    /// Maximum number of rooms for one connection
    #[arg(long, env = "ROLLCALL_MAX_ROOMS", value_name = "N")]
    #[arg(default_value = "100", value_parser = number::<usize, 1, 10_000>)]
    pub max_rooms: usize,
}

/// The name and the pages of a process that keeps running.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Process")]
pub struct ProcessArgs {
    /// Name of this instance; each start adds a unique suffix [default: the host's name]
    #[arg(long, env = "ROLLCALL_NAME", value_name = "NAME", value_parser = name)]
    pub name: Option<String>,
    /// Address for /metrics, /livez, /readyz; auto: 127.0.0.1 and the first free port of 9464-9473; or off
    #[arg(long, env = "ROLLCALL_HTTP", value_name = "ADDRESS", default_value = "auto")]
    pub http: Http,
}

/// What is logged.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Log")]
pub struct LogArgs {
    /// Level (error, warn, info, debug, trace, off) or target=level, separated by commas; reloaded on SIGHUP
    #[arg(long, env = "ROLLCALL_LOG", value_name = "FILTER")]
    #[arg(default_value = "info", value_parser = log_filter)]
    pub log: String,
    /// Format of the log: text or json
    #[arg(long, env = "ROLLCALL_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
}

/// The flags of a query, which reads windows and lifetimes from the state itself.
#[derive(Args, Clone, Debug)]
#[allow(missing_docs, reason = "the groups say what they are")]
pub struct QueryFlags {
    #[command(flatten)]
    pub connection: ConnectionArgs,
    #[command(flatten)]
    pub keys: KeyArgs,
    #[command(flatten)]
    pub log: LogArgs,
}

/// The flags of a command about sessions and their data.
#[derive(Args, Clone, Debug)]
#[allow(missing_docs, reason = "the groups say what they are")]
pub struct SessionFlags {
    #[command(flatten)]
    pub query: QueryFlags,
    #[command(flatten)]
    pub seal: SealArgs,
}

/// The flags of a command about the stream: status, dead letters, load.
#[derive(Args, Clone, Debug)]
#[allow(missing_docs, reason = "the groups say what they are")]
pub struct StreamFlags {
    #[command(flatten)]
    pub query: QueryFlags,
    #[command(flatten)]
    pub stream: StreamArgs,
}

/// The flags of the command that erases a user.
#[derive(Args, Clone, Debug)]
#[allow(missing_docs, reason = "the groups say what they are")]
pub struct EraseFlags {
    #[command(flatten)]
    pub stream: StreamFlags,
    #[command(flatten)]
    pub endings: EndingArgs,
}

/// The flags of a command that replays the stream.
#[derive(Args, Clone, Debug)]
#[allow(missing_docs, reason = "the groups say what they are")]
pub struct VerifyFlags {
    #[command(flatten)]
    pub stream: StreamFlags,
    #[command(flatten)]
    pub seal: SealArgs,
}

/// The flags of a command that replays the stream and may change the deployment's settings.
#[derive(Args, Clone, Debug)]
#[allow(missing_docs, reason = "the groups say what they are")]
pub struct RebuildFlags {
    #[command(flatten)]
    pub verify: VerifyFlags,
    #[command(flatten)]
    pub state: StateArgs,
    #[command(flatten)]
    pub limits: LimitArgs,
}

/// The flags of both long-running roles.
#[derive(Args, Clone, Debug)]
#[allow(missing_docs, reason = "the groups say what they are")]
pub struct RoleFlags {
    #[command(flatten)]
    pub stream: StreamFlags,
    #[command(flatten)]
    pub process: ProcessArgs,
    #[command(flatten)]
    pub state: StateArgs,
    #[command(flatten)]
    pub limits: LimitArgs,
}

/// The flags of a worker.
#[derive(Args, Clone, Debug)]
#[allow(missing_docs, reason = "the groups say what they are")]
pub struct WorkerFlags {
    #[command(flatten)]
    pub role: RoleFlags,
    #[command(flatten)]
    pub worker: WorkerArgs,
    #[command(flatten)]
    pub seal: SealArgs,
}

/// The flags of a janitor.
#[derive(Args, Clone, Debug)]
#[allow(missing_docs, reason = "the groups say what they are")]
pub struct JanitorFlags {
    #[command(flatten)]
    pub role: RoleFlags,
    #[command(flatten)]
    pub janitor: JanitorArgs,
}

/// The flags of `serve`.
#[derive(Args, Clone, Debug)]
#[allow(missing_docs, reason = "the groups say what they are")]
pub struct ServeFlags {
    #[command(flatten)]
    pub role: RoleFlags,
    #[command(flatten)]
    pub serve: ServeArgs,
    #[command(flatten)]
    pub seal: SealArgs,
}

/// Every setting: the flags of `run` and `config`.
#[derive(clap::Parser, Clone, Debug)]
#[command(name = "rollcall", disable_help_flag = true)]
#[allow(missing_docs, reason = "the groups say what they are")]
pub struct Settings {
    #[command(flatten)]
    pub role: RoleFlags,
    #[command(flatten)]
    pub worker: WorkerArgs,
    #[command(flatten)]
    pub janitor: JanitorArgs,
    #[command(flatten)]
    pub serve: ServeArgs,
    #[command(flatten)]
    pub seal: SealArgs,
}
