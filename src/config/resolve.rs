//! Makes the configuration from what was set: parses the texts and checks the relations between settings.

use std::error::Error as _;

use clap::error::{ContextKind, ContextValue};
use clap::{CommandFactory as _, FromArgMatches as _};

use super::error::{ConfigError, Origin};
use super::gather::Gathered;
use super::serve::{Networks, Origins, RateLimitSetting};
use super::server::read_password;
use super::settings::{ConnectionArgs, JanitorArgs, LimitArgs, ServeArgs, Settings, WorkerArgs};
use super::{
    Config, Deployment, JanitorConfig, Limits, Listen, Live, LogConfig, Millis, Projection,
    RedisConfig, ServeConfig, ServerError, TlsFiles, Tuned, WorkerConfig, values,
};
use crate::key::Keys;

impl Config {
    /// Makes the configuration from what was set.
    ///
    /// # Errors
    /// Names the setting that is impossible, alone or in combination with another, and the remedy.
    pub fn resolve(gathered: &Gathered) -> Result<Self, ConfigError> {
        let settings = read(gathered)?;
        let process = settings.role.process.clone();
        let log = settings.role.stream.query.log.clone();
        let worker = worker(&settings.worker);
        let janitor = janitor(&settings.janitor, gathered)?;
        let serve = serve(settings.serve.clone(), gathered)?;
        Ok(Self {
            redis: redis(&settings.role.stream.query.connection, gathered)?,
            live: Live::new(tuned(&worker, &janitor, &serve)),
            worker,
            janitor,
            serve,
            session_key_file: settings.seal.session_key_file.clone(),
            notify: gathered.targets()?,
            deployment: deployment(settings, gathered)?,
            name: process.name.unwrap_or_else(host_name),
            http: process.http,
            log: LogConfig { filter: log.log, format: log.log_format },
        })
    }
}

fn tuned(worker: &WorkerConfig, janitor: &JanitorConfig, serve: &ServeConfig) -> Tuned {
    Tuned {
        batch: worker.batch,
        standbys: worker.standbys,
        janitor: janitor.clone(),
        rate_limit: serve.rate_limit,
        linger: serve.linger,
        max_rooms: serve.max_rooms,
    }
}

/// Reads every text with its setting's parser. The real environment is not read here; it has been gathered already.
fn read(gathered: &Gathered) -> Result<Settings, ConfigError> {
    let command = Settings::command().mut_args(|arg| arg.env(clap::builder::Resettable::Reset));
    let arguments = std::iter::once("rollcall".to_owned()).chain(gathered.arguments());
    command
        .try_get_matches_from(arguments)
        .and_then(|mut matches| Settings::from_arg_matches_mut(&mut matches))
        .map_err(|error| refused(&error, gathered))
}

/// clap's error names the argument as `--batch <N>` and keeps the parser's error as its source.
fn refused(error: &clap::Error, gathered: &Gathered) -> ConfigError {
    let argument = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(argument)) => argument.as_str(),
        _ => "",
    };
    let key = argument.trim_start_matches('-').split([' ', '=']).next().unwrap_or_default();
    let why = error.source().map_or_else(|| error.kind().to_string(), ToString::to_string);
    gathered.refuse(key, why)
}

fn redis(args: &ConnectionArgs, gathered: &Gathered) -> Result<RedisConfig, ConfigError> {
    let mut password = args.redis_password.clone();
    let mut password_key = "redis-password";
    if let Some(path) = &args.redis_password_file {
        if password.is_some() {
            let why = "redis-password gives a password too; keep one of them";
            return Err(gathered.refuse("redis-password-file", why));
        }
        password_key = "redis-password-file";
        let read = read_password(path).map_err(|source| ConfigError::Unreadable {
            setting: password_key,
            origin: gathered.origin(password_key),
            path: path.clone(),
            source,
        });
        password = Some(read?);
    }
    let username = args.redis_username.as_deref();
    let config = RedisConfig::new(args.redis_url.clone(), username, password.as_ref());
    let config = config.map_err(|error| {
        let key = match error {
            ServerError::TwoPasswords => password_key,
            ServerError::TwoUsernames => "redis-username",
            ServerError::NoPassword if username.is_some() => "redis-username",
            _ => "redis-url",
        };
        gathered.refuse(key, error)
    })?;
    let tls = tls(args, &config, gathered)?;
    let config = config.with_tls(tls);
    Ok(match &args.redis_password_file {
        Some(path) => config.with_password_file(path),
        None => config,
    })
}

/// The settings of TLS; the files must be usable at the start.
fn tls(
    args: &ConnectionArgs,
    redis: &RedisConfig,
    gathered: &Gathered,
) -> Result<TlsFiles, ConfigError> {
    let tls = TlsFiles {
        ca: args.redis_tls_ca.clone(),
        cert: args.redis_tls_cert.clone(),
        key: args.redis_tls_key.clone(),
        name: args.redis_tls_name.clone(),
    };
    let Some((first, _)) = tls.given().into_iter().next() else { return Ok(tls) };
    if !matches!(redis.server().info.addr(), redis::ConnectionAddr::TcpTls { .. }) {
        let why = "redis-url does not ask for TLS, so this has no effect; use rediss:// there, or remove this";
        return Err(gathered.refuse(first, why));
    }
    let lonely = match (&tls.cert, &tls.key) {
        (Some(_), None) => Some(("redis-tls-cert", "set its key with redis-tls-key")),
        (None, Some(_)) => Some(("redis-tls-key", "set its certificate with redis-tls-cert")),
        _ => None,
    };
    if let Some((setting, why)) = lonely {
        return Err(gathered.refuse(setting, why));
    }
    if let Some(name) = &tls.name
        && rustls::pki_types::ServerName::try_from(name.as_str()).is_err()
    {
        let why = "must be a host name or an address without a port, such as redis.example.com";
        return Err(gathered.refuse("redis-tls-name", why));
    }
    let files = tls.client();
    files.map_err(|error| gathered.refuse(error.setting, error.why))?;
    Ok(tls)
}

fn worker(args: &WorkerArgs) -> WorkerConfig {
    WorkerConfig { batch: args.batch, takeover: args.takeover.into(), standbys: args.standbys }
}

fn janitor(args: &JanitorArgs, gathered: &Gathered) -> Result<JanitorConfig, ConfigError> {
    if args.endings.horizon < args.keep {
        // Blame the setting that was set explicitly.
        let keep_is_new = gathered.origin("horizon") == Origin::Default;
        let (key, other, value, how) = if keep_is_new {
            ("keep", "horizon", args.endings.horizon, "at most")
        } else {
            ("horizon", "keep", args.keep, "at least")
        };
        let other = beside(gathered, other, value);
        let why = format!(
            "must be {how} {other}: endings must be remembered for as long as entries stay in the stream; \
             raise horizon or lower keep"
        );
        return Err(gathered.refuse(key, why));
    }
    Ok(JanitorConfig {
        interval: args.janitor_interval.into(),
        keep_ms: args.keep.ms(),
        horizon_ms: args.endings.horizon.ms(),
    })
}

fn serve(args: ServeArgs, gathered: &Gathered) -> Result<ServeConfig, ConfigError> {
    let (Origins(cors_origins), Networks(trusted_proxies)) =
        (args.cors_origin, args.trusted_proxies);
    let RateLimitSetting(rate_limit) = args.rate_limit;
    let serve = ServeConfig {
        listen: args.listen,
        read_token_file: args.read_token_file,
        write_token_file: args.write_token_file,
        jwt_key_file: args.jwt_key_file,
        cors_origins,
        trusted_proxies,
        rate_limit,
        linger: args.linger.into(),
        buffer: args.buffer,
        activity_interval: args.activity_interval.into(),
        activity_rate: args.activity_rate,
        max_connections: args.max_connections,
        max_client_connections: args.max_client_connections,
        max_rooms: args.max_rooms,
    };
    if args.linger > Millis::new(1_000) {
        return Err(gathered.refuse("linger", "must be at most 1s: every event waits that long"));
    }
    match serve.listen {
        Some(Listen::Addr(address)) if !address.ip().is_loopback() && !serve.has_credentials() => {
            let why = "other machines could read and write everything; set read-token-file, \
                       write-token-file or jwt-key-file, or listen on 127.0.0.1";
            Err(gathered.refuse("listen", why))
        }
        _ => Ok(serve),
    }
}

fn deployment(settings: Settings, gathered: &Gathered) -> Result<Deployment, ConfigError> {
    let (role, state) = (settings.role.stream, settings.role.state);
    let (keys, stream) = (role.query.keys, role.stream);
    check_prefix(&keys.prefix, keys.partitions).map_err(|why| gathered.refuse("prefix", why))?;
    if is_state(&stream.stream) {
        let why =
            "would collide with a key of the state; choose another name, such as rollcall:events";
        return Err(gathered.refuse("stream", why));
    }
    if !state.thresholds.0.is_empty() && !state.projections.contains(Projection::Documents) {
        let why = "need the projection documents; add it to projections, or set thresholds to none";
        return Err(gathered.refuse("thresholds", why));
    }
    Ok(Deployment {
        prefix: keys.prefix,
        partitions: keys.partitions,
        stream: stream.stream,
        group: stream.group,
        projections: state.projections,
        thresholds: state.thresholds.0,
        max_skew_ms: state.max_skew.ms(),
        online_window_ms: state.online_window.ms(),
        presence_ttl_ms: state.presence_ttl.ms(),
        session_ttl_ms: state.session_ttl.ms(),
        document_ttl_ms: state.document_ttl.ms(),
        recent_cap: state.recent_cap,
        viewed_cap: state.viewed_cap,
        ranking_cap: state.ranking_cap,
        dead_cap: state.dead_cap,
        changes_cap: state.changes_cap,
        limits: limits(&settings.role.limits, gathered)?,
    })
}

fn limits(args: &LimitArgs, gathered: &Gathered) -> Result<Limits, ConfigError> {
    if args.max_field_bytes < args.max_identifier_bytes {
        let other = beside(gathered, "max-identifier-bytes", args.max_identifier_bytes);
        let why = format!("must be at least {other}; raise it or lower that");
        return Err(gathered.refuse("max-field-bytes", why));
    }
    Ok(Limits {
        max_identifier_bytes: args.max_identifier_bytes,
        max_field_bytes: args.max_field_bytes,
        max_data_bytes: args.max_data_bytes,
        max_fields: args.max_fields,
        max_events: args.max_events,
    })
}

/// The other side of a relation: `takeover = 3s (default)`.
fn beside(gathered: &Gathered, key: &str, value: impl std::fmt::Display) -> String {
    format!("{key} = {value} ({})", gathered.origin(key))
}

impl Config {
    /// Checks that the deployment could have this many partitions: no process would accept the settings otherwise.
    ///
    /// # Errors
    /// If the settings cannot be used, or not with this many partitions.
    pub fn check_partitions(gathered: &Gathered, partitions: u16) -> Result<(), ConfigError> {
        let prefix = Self::resolve(gathered)?.deployment.prefix;
        check_prefix(&prefix, partitions).map_err(|why| gathered.refuse("prefix", why))
    }
}

/// A hash tag in the prefix would determine the slot, overriding the partition's own.
fn check_prefix(prefix: &str, partitions: u16) -> Result<(), &'static str> {
    if !prefix.contains(['{', '}']) {
        return Ok(());
    }
    if partitions > 1 {
        return Err("must have no braces with more than one partition: each partition has its own");
    }
    let tag = prefix.split_once('{').and_then(|(before, rest)| {
        let (tag, after) = rest.split_once('}')?;
        (!tag.is_empty() && !format!("{before}{tag}{after}").contains(['{', '}'])).then_some(())
    });
    tag.ok_or("must have no braces, or exactly one hash tag, such as {acme}:")
}

/// Whether a stream of this name would collide with a key of the state. Everything under `rollcall:` is reserved for
/// Rollcall, except names that begin like the default stream.
fn is_state(stream: &str) -> bool {
    let keys = Keys::new("", 1, 0);
    let whole = [keys.login(), keys.recent(), keys.presence(), keys.sessions()];
    let beginnings =
        [keys.viewed(), keys.session_data(), keys.online(), keys.activity(), keys.document()];
    whole.iter().any(|key| key == stream)
        || beginnings.iter().any(|beginning| stream.starts_with(beginning.as_str()))
        || stream.starts_with("rollcall:") && !stream.starts_with("rollcall:events")
}

/// The host's name, as Linux reports it; `rollcall` elsewhere.
fn host_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    values::name(host.trim()).unwrap_or_else(|_| "rollcall".to_owned())
}
