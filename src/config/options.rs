//! The options of a Redis URL. There are few: what other clients accept as an option is a part of the URL or a
//! setting here, and the error says which. An ignored option could lead to another database, user or authority.

use std::borrow::Cow;

use super::error::nearest;
use super::server::ServerError;

/// What a URL leads to; each kind has its own options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// A host and a port.
    Host,
    /// A Unix socket.
    Socket,
    /// A master, through its sentinels.
    Master,
    /// A Cluster, through some of its nodes.
    Cluster,
}

const PROTOCOL: &str = "protocol";
const PROTOCOLS: &[&str] = &["2", "resp2", "3", "resp3"];

impl Target {
    /// The target of a URL with this scheme, which is neither one of sentinels nor of a Cluster.
    pub(super) fn of(scheme: &str) -> Self {
        if scheme.ends_with("unix") { Self::Socket } else { Self::Host }
    }

    fn options(self) -> &'static [&'static str] {
        match self {
            Self::Host | Self::Cluster => &[PROTOCOL],
            Self::Socket => &[PROTOCOL, "db", "user", "pass"],
            Self::Master => &[PROTOCOL, "sentinel_username", "sentinel_password"],
        }
    }
}

/// What an option of another client sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Topic {
    Database,
    Login,
    Authorities,
    Verification,
    Certificate,
    Tls,
    Sentinels,
    Master,
    Prefix,
    Times,
    Nothing,
}

/// Options that redis-py, go-redis, ioredis, node-redis, Lettuce and others accept, in lower case and without `_`.
const FOREIGN: &[(Topic, &[&str])] = &[
    (Topic::Database, &["db", "database"]),
    (Topic::Login, &["user", "username", "pass", "password", "auth"]),
    (Topic::Authorities, &["sslcacerts", "sslcapath", "sslcadata", "cacert", "cafile", "tlsca"]),
    (
        Topic::Verification,
        &["sslcertreqs", "sslcheckhostname", "skipverify", "verifypeer", "insecure"],
    ),
    (Topic::Certificate, &["sslkeyfile", "sslcertfile", "sslpassword", "tlscert", "tlskey"]),
    (Topic::Tls, &["ssl", "tls"]),
    (Topic::Sentinels, &["sentinelusername", "sentinelpassword"]),
    (Topic::Master, &["sentinelmasterid", "mastername", "servicename", "master", "sentinel"]),
    (Topic::Prefix, &["prefix", "keyprefix"]),
    (
        Topic::Times,
        &[
            "timeout",
            "sockettimeout",
            "socketconnecttimeout",
            "connecttimeout",
            "commandtimeout",
            "dialtimeout",
            "readtimeout",
            "writetimeout",
            "retryontimeout",
            "healthcheckinterval",
            "socketkeepalive",
            "keepalive",
        ],
    ),
    (
        Topic::Nothing,
        &[
            "maxconnections",
            "poolsize",
            "pooltimeout",
            "minidleconns",
            "maxidleconns",
            "maxretries",
            "decoderesponses",
            "encoding",
            "encodingerrors",
            "clientname",
            "connectionname",
            "libraryname",
            "libname",
            "family",
            "addr",
        ],
    ),
];

impl Topic {
    fn of(name: &str) -> Option<Self> {
        let name: String = name.chars().filter(|c| !"_-".contains(*c)).collect();
        let name = name.to_ascii_lowercase();
        FOREIGN.iter().find(|(_, names)| names.contains(&&*name)).map(|(topic, _)| *topic)
    }

    /// What to write instead of the option.
    fn place(self, target: Target) -> &'static str {
        match (self, target) {
            (Self::Database, Target::Host) => "write the database as the path: redis://host:6379/3",
            (Self::Database, Target::Socket) => "write the database as db=3",
            (Self::Database, Target::Master) => {
                "write the database after the master's name: /mymaster/3"
            }
            (Self::Database, Target::Cluster) => "a Cluster has one database; remove it",
            (Self::Login, Target::Socket) => {
                "write the login as user=… and pass=…, or use --redis-username and --redis-password-file"
            }
            (Self::Login, _) => {
                "write the login before the host, user:password@host, or use --redis-username and \
                 --redis-password-file"
            }
            (Self::Authorities, _) => {
                "use --redis-tls-ca; without it rediss:// trusts the machine's authorities"
            }
            (Self::Verification, _) => {
                "certificates are always verified; remove it, and name the server's authority with --redis-tls-ca"
            }
            (Self::Certificate, _) => "use --redis-tls-cert and --redis-tls-key",
            (Self::Tls, Target::Master) => "for TLS use the scheme rediss+sentinel://",
            (Self::Tls, Target::Cluster) => "for TLS use the scheme rediss+cluster://",
            (Self::Tls, _) => "for TLS use the scheme rediss://",
            (Self::Sentinels, _) => "it belongs in redis+sentinel:// URLs",
            (Self::Master, _) => "name the master as redis+sentinel://sentinel:26379/mymaster",
            (Self::Prefix, _) => "use --prefix",
            (Self::Times, _) => "remove it; timeouts follow from --takeover",
            (Self::Nothing, _) => "remove it; this cannot be set",
        }
    }
}

/// Checks that a URL has only options that exist, and nothing after `#`.
///
/// # Errors
/// Names the option, unless it could be a part of a password, and the place where it belongs.
pub(super) fn check<'u>(
    target: Target,
    fragment: Option<&str>,
    options: impl Iterator<Item = (Cow<'u, str>, Cow<'u, str>)>,
) -> Result<(), ServerError> {
    match fragment {
        Some("insecure") => return Err(ServerError::Insecure),
        Some(_) => return Err(ServerError::Fragment),
        None => {}
    }
    let mut seen = Vec::new();
    for (name, value) in options {
        let Some(known) = target.options().iter().copied().find(|known| *known == name) else {
            return Err(unknown(target, &name));
        };
        if seen.contains(&known) {
            return Err(ServerError::OptionTwice(known));
        }
        if known == PROTOCOL && !PROTOCOLS.contains(&&*value) {
            return Err(ServerError::Protocol);
        }
        // Stands for bytes that are not text.
        if value.contains('\u{fffd}') {
            return Err(ServerError::OptionText(known));
        }
        seen.push(known);
    }
    Ok(())
}

fn unknown(target: Target, name: &str) -> ServerError {
    let names = target.options();
    match Topic::of(name) {
        Some(topic) => ServerError::Option { name: name.to_owned(), place: topic.place(target) },
        None => ServerError::UnknownOption {
            nearest: nearest(name, names.iter().copied()),
            known: names.join(", "),
        },
    }
}

/// The text of a URL with every `+` in its options written as `%2B`. In a URL `+` means itself; a form parser would
/// read it as a space.
pub(super) fn with_literal_plus(text: &str) -> Cow<'_, str> {
    match text.split_once('?') {
        Some((rest, options)) if options.contains('+') => {
            format!("{rest}?{}", options.replace('+', "%2B")).into()
        }
        _ => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{RedisConfig, RedisUrl};

    /// Each kind of URL, without options.
    const URLS: [&str; 11] = [
        "redis://host",
        "rediss://host/1",
        "valkey://host",
        "valkeys://host",
        "unix:/r.sock",
        "redis+unix:///r.sock",
        "valkey+unix:///r.sock",
        "redis+sentinel://host/m",
        "rediss+sentinel://host/m/1",
        "redis+cluster://host",
        "rediss+cluster://host:1,other",
    ];

    fn refused(url: &str) -> String {
        let error = RedisConfig::new(RedisUrl::from(url.to_owned()), None, None).unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(!text.contains("hunter2"), "{url}: {text}");
        text
    }

    #[test]
    fn what_other_clients_take_as_an_option_is_refused_for_every_url_with_its_place() {
        for url in URLS {
            let own = |name: &str| url.contains("unix") && ["db", "user", "pass"].contains(&name);
            let own =
                |name: &str| own(name) || url.contains("sentinel:") && name.starts_with("sentinel");
            for (name, words) in [
                ("db", "database"),
                ("Database", "database"),
                ("user", "--redis-username"),
                ("password", "--redis-password-file"),
                ("pass", "--redis-password-file"),
                ("ssl_ca_certs", "--redis-tls-ca"),
                ("sslCaCerts", "--redis-tls-ca"),
                ("ssl_cert_reqs", "always verified"),
                ("ssl_certfile", "--redis-tls-cert"),
                ("ssl", "use the scheme rediss"),
                ("sentinel_password", "redis+sentinel://"),
                ("sentinelMasterId", "redis+sentinel://sentinel:26379/mymaster"),
                ("keyPrefix", "--prefix"),
                ("socket_timeout", "--takeover"),
                ("client-name", "remove it"),
            ] {
                if own(name) {
                    continue;
                }
                let text = refused(&format!("{url}?protocol=resp2&{name}=hunter2"));
                assert!(text.contains(&format!("{name} is not an option of this URL")), "{text}");
                assert!(text.contains(words), "{url} {name}: {text}");
            }
            for (options, words) in [
                ("hunter2=1", "unknown option; the options are protocol"),
                ("protocl=hunter2", "did you mean protocol?"),
                ("protocol=hunter2", "resp2 or resp3"),
                ("protocol=2&protocol=3", "protocol twice"),
            ] {
                let text = refused(&format!("{url}?{options}"));
                assert!(text.contains(words), "{url}?{options}: {text}");
            }
        }
        for url in
            ["redis://host", "unix:/r.sock", "redis+sentinel://host/m/0", "redis+cluster://host"]
        {
            assert!(refused(&format!("{url}#hunter2")).contains("# as %23"), "{url}");
        }
        assert!(refused("unix:/r.sock?pass=%FF").contains("pass is not UTF-8"));
    }

    #[test]
    fn a_database_belongs_where_the_url_has_it() {
        for (url, words) in [
            ("rediss://host?db=3", "redis://host:6379/3"),
            ("unix:/r.sock?database=3", "db=3"),
            ("redis+sentinel://host/m?db=3", "/mymaster/3"),
            ("redis+cluster://host?db=3", "one database"),
        ] {
            assert!(refused(url).contains(words), "{url}");
        }
    }

    #[test]
    fn a_plus_in_an_option_is_a_plus() {
        let login = |url: &str| {
            let config = RedisConfig::new(RedisUrl::from(url.to_owned()), None, None).unwrap();
            let server = config.server();
            let info = match server.sentinels {
                Some(sentinels) => sentinels.nodes[0].clone(),
                None => server.info,
            };
            let login = info.redis_settings();
            (login.username().unwrap().to_owned(), login.password().unwrap().to_owned())
        };
        let expected = ("a+b".to_owned(), "c+d e".to_owned());
        assert_eq!(login("unix:/r.sock?user=a+b&pass=c+d%20e"), expected);
        assert_eq!(login("unix:/r.sock?user=a%2Bb&pass=c%2bd%20e"), expected);
        let url = "redis+sentinel://h/m?sentinel_username=a+b&sentinel_password=c+d%20e";
        assert_eq!(login(url), expected);
        assert_eq!(login("redis://a+b:c+d%20e@host"), expected);
    }
}
