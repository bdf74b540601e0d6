//! Where traces go. Only the variables that OpenTelemetry defines for every program (`OTEL_…`) configure it.
//!
//! Traces are off unless an endpoint is set. A value that cannot be honoured is an error. The SDK itself reads the
//! service's name (`OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`) and how spans are queued (`OTEL_BSP_…`).

use std::ffi::OsString;
use std::time::Duration;

use super::error::{ConfigError, Origin};

/// How traces are exported.
#[derive(Clone, Debug, PartialEq)]
pub struct TraceConfig {
    /// The URL that OTLP is posted to.
    pub endpoint: String,
    /// The time limit of an export, including retries.
    pub timeout: Duration,
    /// Which traces are recorded.
    pub sampling: Sampling,
}

/// Which traces are recorded. Rollcall's have no parents, so `parentbased_` makes no difference.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sampling {
    /// Few enough to cost next to nothing under any load.
    Limited,
    /// All.
    Always,
    /// None.
    Never,
    /// This fraction of them, from 0 to 1.
    Ratio(f64),
}

/// A variable of the exporter: the one for traces, which takes precedence, and the one for all signals.
type Pair = [&'static str; 2];

const ENDPOINT: Pair = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
const PROTOCOL: Pair = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];
const COMPRESSION: Pair =
    ["OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "OTEL_EXPORTER_OTLP_COMPRESSION"];
const HEADERS: Pair = ["OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"];
const TIMEOUT: Pair = ["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"];

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

impl TraceConfig {
    /// What the variables configure; `None` if traces are off.
    ///
    /// # Errors
    /// Names the variable whose value cannot be honoured, and the remedy.
    pub fn from_variables(
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Option<Self>, ConfigError> {
        let variables = Variables(&variable);
        let disabled = variables.read("OTEL_SDK_DISABLED", truth)?.unwrap_or(false);
        let exports = variables.read("OTEL_TRACES_EXPORTER", exporter)?.unwrap_or(true);
        let Some(endpoint) = variables.endpoint()?.filter(|_| exports && !disabled) else {
            return Ok(None);
        };
        variables.either(PROTOCOL, |text| only("http/protobuf", text))?;
        variables.either(COMPRESSION, |text| only("none", text))?;
        // The exporter reads them itself and would ignore what it cannot use.
        variables.either(HEADERS, headers)?;
        let timeout = variables.either(TIMEOUT, milliseconds)?.unwrap_or(DEFAULT_TIMEOUT);
        Ok(Some(Self { endpoint, timeout, sampling: variables.sampling()? }))
    }
}

/// A source of variables.
struct Variables<'v>(&'v dyn Fn(&str) -> Option<OsString>);

impl Variables<'_> {
    /// A variable's value; an empty one counts as absent.
    fn read<T>(
        &self,
        name: &'static str,
        parse: impl FnOnce(&str) -> Result<T, &'static str>,
    ) -> Result<Option<T>, ConfigError> {
        let Some(value) = (self.0)(name).filter(|value| !value.is_empty()) else {
            return Ok(None);
        };
        let text = value.to_str().ok_or("must be valid UTF-8");
        text.and_then(|text| parse(text.trim())).map(Some).map_err(|why| {
            // Headers, and some endpoints, contain tokens.
            let is_secret = HEADERS.contains(&name) || ENDPOINT.contains(&name);
            let got = if is_secret { "\"***\"".to_owned() } else { format!("{value:?}") };
            let origin = Origin::Env(name.to_owned());
            ConfigError::Refused { setting: name, origin, got, why: why.to_owned() }
        })
    }

    fn either<T>(
        &self,
        [own, general]: Pair,
        parse: impl Fn(&str) -> Result<T, &'static str>,
    ) -> Result<Option<T>, ConfigError> {
        match self.read(own, &parse)? {
            Some(value) => Ok(Some(value)),
            None => self.read(general, parse),
        }
    }

    /// The endpoint for traces as given, or else the endpoint for all signals with the path for traces.
    fn endpoint(&self) -> Result<Option<String>, ConfigError> {
        let [own, general] = ENDPOINT;
        let with_path = |base: String| format!("{}/v1/traces", base.trim_end_matches('/'));
        match self.read(own, url)? {
            Some(endpoint) => Ok(Some(endpoint)),
            None => Ok(self.read(general, url)?.map(with_path)),
        }
    }

    fn sampling(&self) -> Result<Sampling, ConfigError> {
        let ratio = self.read("OTEL_TRACES_SAMPLER_ARG", ratio)?.unwrap_or(1.0);
        let sampler = self.read("OTEL_TRACES_SAMPLER", |text| {
            match text.strip_prefix("parentbased_").unwrap_or(text) {
                "always_on" => Ok(Sampling::Always),
                "always_off" => Ok(Sampling::Never),
                "traceidratio" => Ok(Sampling::Ratio(ratio)),
                _ => Err("must be always_on, always_off or traceidratio, alone or after \
                          parentbased_; leave it out for at most ten traces a second"),
            }
        })?;
        Ok(sampler.unwrap_or(Sampling::Limited))
    }
}

fn truth(text: &str) -> Result<bool, &'static str> {
    match text.to_ascii_lowercase().as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err("must be true or false"),
    }
}

/// Whether traces are exported.
fn exporter(text: &str) -> Result<bool, &'static str> {
    match text {
        "otlp" => Ok(true),
        "none" => Ok(false),
        _ => Err("must be otlp or none"),
    }
}

fn only(supported: &'static str, text: &str) -> Result<(), &'static str> {
    match supported {
        _ if text == supported => Ok(()),
        "none" => Err("must be none: Rollcall does not compress; a collector next to it can"),
        _ => Err("must be http/protobuf, which collectors usually accept on port 4318"),
    }
}

fn url(text: &str) -> Result<String, &'static str> {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let is_url = |rest: &str| {
        rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[')
            && rest.bytes().all(|b| b.is_ascii_graphic() && b != b'@')
    };
    if rest.is_some_and(is_url) {
        return Ok(text.to_owned());
    }
    Err("must be a URL such as http://localhost:4318 or https://otlp.example.com, without a \
         password: send that in OTEL_EXPORTER_OTLP_HEADERS")
}

fn headers(text: &str) -> Result<(), &'static str> {
    let is_header = |pair: &str| {
        let name = pair.split_once('=').map_or("", |(name, _)| name.trim());
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    match text.split(',').all(is_header) {
        true => Ok(()),
        false => Err("must be name=value pairs separated by commas, values percent-encoded"),
    }
}

fn milliseconds(text: &str) -> Result<Duration, &'static str> {
    let ms = text.parse().ok().filter(|ms| (1..=3_600_000).contains(ms));
    ms.map(Duration::from_millis).ok_or("must be whole milliseconds from 1 to 3600000")
}

fn ratio(text: &str) -> Result<f64, &'static str> {
    let ratio = text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
    ratio.ok_or("must be the fraction of traces to record, from 0 to 1")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Option<TraceConfig>, ConfigError> {
        TraceConfig::from_variables(|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| OsString::from(value))
        })
    }

    fn with_endpoint(variables: &[(&str, &str)]) -> Result<Option<TraceConfig>, ConfigError> {
        let endpoint = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318")];
        read(&[variables, &endpoint].concat())
    }

    #[test]
    fn traces_are_off_unless_an_endpoint_is_set() {
        assert_eq!(read(&[]).unwrap(), None);
        assert_eq!(read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "")]).unwrap(), None);
        assert!(with_endpoint(&[("OTEL_SDK_DISABLED", "False")]).unwrap().is_some());
        for off in [("OTEL_SDK_DISABLED", "TRUE"), ("OTEL_TRACES_EXPORTER", "none")] {
            assert_eq!(with_endpoint(&[off]).unwrap(), None, "{off:?}");
        }
    }

    #[test]
    fn the_variable_for_traces_wins_and_stands_as_it_is() {
        let config = with_endpoint(&[]).unwrap().unwrap();
        assert_eq!(config.endpoint, "http://localhost:4318/v1/traces");
        assert_eq!((config.timeout, config.sampling), (DEFAULT_TIMEOUT, Sampling::Limited));
        let config = with_endpoint(&[
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://otlp.example.com/x"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "20"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "10"),
        ]);
        let config = config.unwrap().unwrap();
        assert_eq!(config.endpoint, "https://otlp.example.com/x");
        assert_eq!(config.timeout, Duration::from_millis(10));
    }

    #[test]
    fn every_sampler_of_the_standard_that_makes_sense_is_known() {
        for (sampler, expected) in [
            ("always_on", Sampling::Always),
            ("parentbased_always_on", Sampling::Always),
            ("always_off", Sampling::Never),
            ("parentbased_always_off", Sampling::Never),
            ("traceidratio", Sampling::Ratio(0.25)),
            ("parentbased_traceidratio", Sampling::Ratio(0.25)),
        ] {
            let set = [("OTEL_TRACES_SAMPLER", sampler), ("OTEL_TRACES_SAMPLER_ARG", "0.25")];
            assert_eq!(with_endpoint(&set).unwrap().unwrap().sampling, expected);
        }
        let all = [("OTEL_TRACES_SAMPLER", "traceidratio")];
        assert_eq!(with_endpoint(&all).unwrap().unwrap().sampling, Sampling::Ratio(1.0));
    }

    #[test]
    fn what_cannot_be_honoured_is_refused_by_name() {
        for (name, value) in [
            ("OTEL_SDK_DISABLED", "yes"),
            ("OTEL_TRACES_EXPORTER", "zipkin"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4318"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://me:hunter2@localhost"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "hunter2"),
            ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "a=b,=hunter2"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
            ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
            ("OTEL_TRACES_SAMPLER_ARG", "1.5"),
            ("OTEL_TRACES_SAMPLER_ARG", "NaN"),
        ] {
            let said = with_endpoint(&[(name, value)]).unwrap_err().to_string();
            assert!(said.starts_with(&format!("{name} = \"")), "{said}");
            assert!(said.contains(&format!("(env {name}): must be ")), "{said}");
            assert!(!said.contains("hunter2"), "{said}");
        }
    }
}
