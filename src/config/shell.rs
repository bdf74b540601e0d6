//! Commands that are suggested to people. Each names the server and the deployment in question, so it does the right
//! thing wherever it is pasted. None contains a password.

use std::sync::LazyLock;

use redis::{ConnectionAddr, ConnectionInfo};

use super::{Config, Deployment, Gathered, RedisConfig, Server};

/// Where Redis is by default.
const DEFAULT_URL: &str = "redis://127.0.0.1:6379";
/// Options of a URL that belong to a login.
const LOGIN: [&str; 4] = ["user", "pass", "sentinel_username", "sentinel_password"];
/// The options of `redis-cli` for the settings of TLS.
const OPTIONS: [(&str, &str); 4] = [
    ("redis-tls-ca", "--cacert"),
    ("redis-tls-cert", "--cert"),
    ("redis-tls-key", "--key"),
    ("redis-tls-name", "--sni"),
];
/// The commands that compare all settings of a deployment with the stored ones.
const ROLES: [&str; 4] = ["worker", "janitor", "run", "doctor"];

/// Builds shell commands that reach the deployment in question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shell {
    /// `redis-cli` with its options for the server.
    redis_cli: String,
    /// The same for the first sentinel.
    sentinel_cli: Option<String>,
    /// The URL, unless it is the default.
    url: Option<String>,
    /// The settings of TLS.
    tls: Vec<(&'static str, String)>,
    /// Settings that are not the default, by name.
    settings: Vec<(&'static str, String)>,
}

impl Shell {
    /// For the deployment on that server.
    pub fn of(redis: &RedisConfig, deployment: &Deployment) -> Self {
        let server = redis.server();
        let url = without_login(&redis.url().to_string());
        let sentinels = server.sentinels.as_ref().and_then(|sentinels| sentinels.nodes.first());
        let tls = server.tls.given();
        let mut cli = match master(&server) {
            Some(master) => format!("redis-cli {master}{}", options(&server.info, &tls)),
            None => redis_cli(&server.info, &tls),
        };
        if deployment.partitions > 1 || deployment.prefix.contains('{') {
            // Follow redirects to the node that has the key.
            cli.push_str(" -c");
        }
        Self {
            redis_cli: cli,
            sentinel_cli: sentinels.map(|sentinel| redis_cli(sentinel, &tls)),
            url: (url != DEFAULT_URL).then_some(url),
            tls,
            settings: unusual(deployment),
        }
    }

    /// For the same deployment, but with Redis commands going to exactly this node.
    #[must_use]
    pub fn at(&self, node: &ConnectionInfo) -> Self {
        Self { redis_cli: redis_cli(node, &self.tls), ..self.clone() }
    }

    /// A command to the server.
    pub fn redis_cli(&self, words: &[&str]) -> String {
        sentence(&self.redis_cli, words)
    }

    /// A command to a sentinel, or to the server if there are no sentinels.
    pub fn sentinel_cli(&self, words: &[&str]) -> String {
        sentence(self.sentinel_cli.as_ref().unwrap_or(&self.redis_cli), words)
    }

    /// A `rollcall` command about this deployment. Roles get all of its settings, as they must agree.
    pub fn rollcall(&self, words: &[&str]) -> String {
        let is_role = words.first().is_some_and(|first| ROLES.contains(first));
        let mut text = sentence("rollcall", words);
        let mut flag = |name: &str, value: &str| {
            text.push_str(&format!(" --{name} {}", quoted(value)));
        };
        if let Some(url) = &self.url {
            flag("redis-url", url);
        }
        for (name, value) in &self.tls {
            flag(name, value);
        }
        for (name, value) in &self.settings {
            if is_role || ["prefix", "partitions", "stream", "group"].contains(name) {
                flag(name, value);
            }
        }
        text
    }
}

/// The settings of a deployment that are not the default.
fn unusual(deployment: &Deployment) -> Vec<(&'static str, String)> {
    static USUAL: LazyLock<Option<Deployment>> = LazyLock::new(|| {
        Config::resolve(&Gathered::default()).ok().map(|config| config.deployment)
    });
    let usual = USUAL.as_ref().map(Deployment::meta_fields).unwrap_or_default();
    let prefix = [("prefix", deployment.prefix.clone())].into_iter();
    let prefix = prefix.filter(|(_, prefix)| !prefix.is_empty());
    prefix.chain(deployment.meta_fields().into_iter().filter(|own| !usual.contains(own))).collect()
}

/// The options with which `redis-cli` reaches the master that sentinels name; the shell asks them.
fn master(server: &Server) -> Option<String> {
    let sentinels = server.sentinels.as_ref()?;
    let ask = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", &sentinels.master];
    let ask = sentence(&redis_cli(sentinels.nodes.first()?, &server.tls.given()), &ask);
    Some(format!("$({ask} | xargs printf -- '-h %s -p %s')"))
}

/// `redis-cli` with its options for a server.
fn redis_cli(info: &ConnectionInfo, tls: &[(&str, String)]) -> String {
    let mut text = "redis-cli".to_owned();
    let (host, port) = match info.addr() {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
            (host.as_str(), *port)
        }
        ConnectionAddr::Unix(path) => {
            text.push_str(&format!(" -s {}", quoted(&path.display().to_string())));
            ("127.0.0.1", 6379)
        }
        _ => ("127.0.0.1", 6379),
    };
    if host != "127.0.0.1" && host != "localhost" {
        text.push_str(&format!(" -h {}", quoted(host)));
    }
    if port != 6379 {
        text.push_str(&format!(" -p {port}"));
    }
    text + &options(info, tls)
}

/// The options for TLS, database and login. They name no user, since whoever fixes a server is seldom the user of a
/// role. If the server's own user has a password, `redis-cli` asks for it.
fn options(info: &ConnectionInfo, tls: &[(&str, String)]) -> String {
    let (mut text, login) = (String::new(), info.redis_settings());
    if matches!(info.addr(), ConnectionAddr::TcpTls { .. }) {
        text.push_str(" --tls");
        for (setting, value) in tls {
            let option = OPTIONS.iter().find(|(own, _)| own == setting);
            let option = option.map(|(_, option)| format!(" {option} {}", quoted(value)));
            text.push_str(&option.unwrap_or_default());
        }
    }
    if login.db() != 0 {
        text.push_str(&format!(" -n {}", login.db()));
    }
    if login.password().is_some() && login.username().is_none_or(|user| user == "default") {
        text.push_str(" --askpass");
    }
    text
}

/// A URL as it is shown, without the options of a login.
fn without_login(shown: &str) -> String {
    let (place, options) = shown.split_once('?').unwrap_or((shown, ""));
    let place = match (place.split_once("://"), place.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, server))) => format!("{scheme}://{server}"),
        _ => place.to_owned(),
    };
    let is_kept = |option: &&str| {
        let name = option.split('=').next().unwrap_or_default();
        !option.is_empty() && !LOGIN.contains(&name)
    };
    let options: Vec<&str> = options.split('&').filter(is_kept).collect();
    if options.is_empty() { place } else { format!("{place}?{}", options.join("&")) }
}

fn sentence(program: &str, words: &[&str]) -> String {
    let words = words.iter().map(|word| quoted(word));
    std::iter::once(program.to_owned()).chain(words).collect::<Vec<_>>().join(" ")
}

/// A word quoted for a shell. Control characters are written as Bash, Zsh and Ksh read them (`$'\x1b'`).
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:+=@,".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    if !word.contains(char::is_control) {
        return format!("'{}'", word.replace('\'', "'\\''"));
    }
    let escaped = word.chars().map(|c| match c {
        '\'' | '\\' => format!("\\{c}"),
        c if c.is_control() => c.to_string().bytes().map(|byte| format!("\\x{byte:02x}")).collect(),
        c => c.to_string(),
    });
    format!("$'{}'", escaped.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(flags: &[(&str, &str)]) -> Shell {
        let config =
            Config::resolve(&Gathered::from_flags(flags.iter().copied()).unwrap()).unwrap();
        Shell::of(&config.redis, &config.deployment)
    }

    fn at(url: &str) -> Shell {
        shell(&[("redis-url", url)])
    }

    #[test]
    fn a_server_at_its_usual_place_is_not_named() {
        let shell = shell(&[]);
        assert_eq!(shell.redis_cli(&["PING"]), "redis-cli PING");
        assert_eq!(shell.rollcall(&["dead", "list"]), "rollcall dead list");
        assert_eq!(at("redis://localhost").redis_cli(&["PING"]), "redis-cli PING");
    }

    #[test]
    fn commands_name_the_server_and_can_be_copied_to_a_shell() {
        for (url, redis_cli, rollcall) in [
            (
                "redis://al:hunter2@db.internal:7000/3",
                "redis-cli -h db.internal -p 7000 -n 3 GET '{p0}:it'\\''s *' ''",
                "rollcall status --redis-url redis://db.internal:7000/3",
            ),
            (
                "rediss://:hunter2@db:6380",
                "redis-cli -h db -p 6380 --tls --askpass GET '{p0}:it'\\''s *' ''",
                "rollcall status --redis-url rediss://db:6380",
            ),
            (
                "unix:/tmp/a b.sock?user=al&db=2&pass=hunter2",
                "redis-cli -s '/tmp/a b.sock' -n 2 GET '{p0}:it'\\''s *' ''",
                "rollcall status --redis-url 'unix:/tmp/a%20b.sock?db=2'",
            ),
            (
                "redis+sentinel://al:hunter2@s1,s2:7/mymaster/1?sentinel_password=hunter2",
                "redis-cli $(redis-cli -h s1 -p 26379 --askpass SENTINEL GET-MASTER-ADDR-BY-NAME mymaster \
                 | xargs printf -- '-h %s -p %s') -n 1 GET '{p0}:it'\\''s *' ''",
                "rollcall status --redis-url redis+sentinel://s1,s2:7/mymaster/1",
            ),
        ] {
            let shell = at(url);
            assert_eq!(shell.redis_cli(&["GET", "{p0}:it's *", ""]), redis_cli);
            assert_eq!(shell.rollcall(&["status"]), rollcall);
            assert!(!format!("{shell:?}").contains("hunter2"));
        }
        assert_eq!(quoted("a\n'\u{1b}[2J"), r"$'a\x0a\'\x1b[2J'");
    }

    #[test]
    fn commands_make_tls_as_the_process_does() {
        let shell = shell(&[("redis-url", "rediss://db:6380"), ("redis-tls-name", "db.local")]);
        assert_eq!(shell.redis_cli(&["PING"]), "redis-cli -h db -p 6380 --tls --sni db.local PING");
        assert_eq!(
            shell.rollcall(&["status"]),
            "rollcall status --redis-url rediss://db:6380 --redis-tls-name db.local"
        );
    }

    #[test]
    fn sentinels_are_asked_at_their_own_address() {
        let shell = at("redis+sentinel://:hunter2@s1:7001,s2/m");
        assert_eq!(
            shell.sentinel_cli(&["SENTINEL", "MASTERS"]),
            "redis-cli -h s1 -p 7001 SENTINEL MASTERS"
        );
        assert_eq!(at("redis://h").sentinel_cli(&["PING"]), "redis-cli -h h PING");
    }

    #[test]
    fn roles_are_started_with_all_settings_of_the_deployment() {
        let shell = shell(&[
            ("prefix", "it's:"),
            ("partitions", "4"),
            ("stream", "in"),
            ("presence-ttl", "1m"),
            ("thresholds", "3:1"),
        ]);
        assert_eq!(
            shell.rollcall(&["worker"]),
            "rollcall worker --prefix 'it'\\''s:' --partitions 4 --stream in --thresholds 3:1 --presence-ttl 1m"
        );
        assert_eq!(
            shell.rollcall(&["status"]),
            "rollcall status --prefix 'it'\\''s:' --partitions 4 --stream in"
        );
        assert_eq!(shell.redis_cli(&["PING"]), "redis-cli -c PING");
        let node = at("redis://node:1").url;
        let node = redis::IntoConnectionInfo::into_connection_info(node.unwrap().as_str()).unwrap();
        assert_eq!(shell.at(&node).redis_cli(&["PING"]), "redis-cli -h node -p 1 PING");
    }
}
