//! A webhook target: its URL, how it is called, and the secrets that sign its calls.

use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::Uri;

/// A webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// Its URL: http or https, with a host.
    pub url: Uri,
    /// The file with one secret, or two while they are rotated.
    pub secret_file: PathBuf,
    /// The maximum number of changes in a call.
    pub batch: usize,
    /// The time limit of a call.
    pub timeout: Duration,
    /// How many refusals make the changes of a call dead letters.
    pub attempts: u32,
    /// Whether it may have an address of a private network.
    pub allow_private: bool,
}

impl Webhook {
    /// The host, without the brackets of an address.
    pub fn host(&self) -> &str {
        self.url.host().unwrap_or_default().trim_matches(['[', ']'])
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.url.port_u16().unwrap_or(if self.is_tls() { 443 } else { 80 })
    }

    /// Whether it is called over TLS.
    pub fn is_tls(&self) -> bool {
        self.url.scheme_str() == Some("https")
    }

    /// The secrets that the file contains now.
    ///
    /// # Errors
    /// Why they cannot be used; the text never contains them.
    pub fn secrets(&self) -> Result<Vec<Vec<u8>>, String> {
        let path = &self.secret_file;
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("cannot read secret-file {path:?}: {error}"))?;
        secrets(&text).ok_or_else(|| {
            format!(
                "secret-file {path:?} must have one or two secrets, one per line, each whsec_ and 24 to 64 bytes in \
                 base64; make one: echo whsec_$(openssl rand -base64 32)"
            )
        })
    }
}

fn secrets(text: &str) -> Option<Vec<Vec<u8>>> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let secret = |line: &str| {
        let secret = STANDARD.decode(line.strip_prefix("whsec_").unwrap_or(line)).ok()?;
        (24..=64).contains(&secret.len()).then_some(secret)
    };
    let all: Vec<Vec<u8>> = lines.map(secret).collect::<Option<_>>()?;
    (1..=2).contains(&all.len()).then_some(all)
}

/// Reads a URL that can be called.
pub(super) fn url(text: &str) -> Result<Uri, String> {
    let wrong =
        "url must be http:// or https:// with a host, such as https://example.com/hooks/presence";
    let uri: Uri = text.parse().map_err(|_| wrong.to_owned())?;
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err("url must contain no user and no password; calls are signed with secret-file"
            .to_owned());
    }
    let is_http = ["http", "https"].map(Some).contains(&uri.scheme_str());
    let has_host = uri.host().is_some_and(|host| !host.is_empty());
    if is_http && has_host { Ok(uri) } else { Err(wrong.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_or_two_secrets_with_or_without_their_prefix() {
        let one = STANDARD.encode([7; 32]);
        assert_eq!(secrets(&format!("whsec_{one}\n")), Some(vec![vec![7; 32]]));
        assert_eq!(secrets(&format!("{one}\n\nwhsec_{one}")), Some(vec![vec![7; 32]; 2]));
        let short = STANDARD.encode([7; 23]);
        for bad in ["", "\n", "whsec_", "whsec_a b", &short, &format!("{one}\n{one}\n{one}")] {
            assert_eq!(secrets(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn urls_can_be_called_and_hold_no_password() {
        for good in ["https://example.com", "http://127.0.0.1:8080/x?y=z", "https://[::1]:8443/"] {
            assert!(url(good).is_ok(), "{good}");
        }
        for bad in
            ["", "example.com", "/x", "ftp://example.com", "https://a:b@example.com", "https://"]
        {
            assert!(url(bad).is_err(), "{bad}");
        }
    }
}
