//! A load profile: the files that ghz reads, so that both tools run the same load.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

use crate::commands::load::arrivals::Rate;

/// Requests of a profile that says neither how many nor how long: ghz's default.
const DEFAULT_TOTAL: u64 = 200;
/// Calls in flight of a profile that does not say: ghz's default.
const DEFAULT_CONCURRENCY: usize = 50;
/// Seconds of patience of a profile that does not say: ghz's default.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(20);

/// The keys of ghz that are understood; others are errors.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct File {
    #[serde(default)]
    name: String,
    call: String,
    #[serde(default)]
    host: String,
    data: Option<Value>,
    data_file: Option<String>,
    total: Option<u64>,
    duration: Option<String>,
    concurrency: Option<usize>,
    connections: Option<usize>,
    timeout: Option<String>,
    rps: Option<f64>,
    load_schedule: Option<String>,
    load_start: Option<f64>,
    load_step: Option<f64>,
    load_end: Option<f64>,
    load_step_duration: Option<String>,
    #[serde(rename = "skipFirst", default)]
    skip_first: u64,
    // What ghz needs to be told and this program does anyway, or what is only for people.
    #[serde(rename = "async", default)]
    _open: bool,
    #[serde(rename = "tags", default)]
    _tags: Value,
    #[serde(rename = "insecure", default)]
    _insecure: bool,
    #[serde(rename = "count-errors", default)]
    _count_errors: bool,
    #[serde(rename = "disable-template-functions", default)]
    _no_functions: bool,
    #[serde(rename = "disable-template-data", default)]
    _no_templates: bool,
    #[serde(rename = "max-recv-message-size", default)]
    _max_message: String,
    #[serde(rename = "duration-stop", default)]
    _duration_stop: String,
    #[serde(rename = "load-max-duration", default)]
    _max_duration: String,
}

/// What is sent, where to, and how fast.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Profile {
    pub(super) name: String,
    /// `package.Service.Method`.
    pub(super) call: String,
    /// Server, or nothing.
    pub(super) host: String,
    /// Requests in turn, as JSON.
    pub(super) requests: Vec<Value>,
    /// Requests at most.
    pub(super) total: Option<u64>,
    /// Time in which requests are sent, at most.
    pub(super) duration: Option<Duration>,
    /// Open loop: requests a second. Without one, each caller waits for its answer before it asks again.
    pub(super) rate: Option<Rate>,
    /// Callers of a closed loop.
    pub(super) concurrency: usize,
    pub(super) connections: usize,
    pub(super) timeout: Duration,
    /// Answers at the beginning that are not counted.
    pub(super) skip_first: u64,
}

impl Profile {
    /// Reads a file of ghz's configuration (JSON).
    ///
    /// # Errors
    /// When it cannot be read, holds a key that is not understood, or names requests that cannot be read.
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let file: File = json(path)?;
        let requests = match (&file.data, &file.data_file) {
            (Some(data), None) => data.clone(),
            (None, Some(data)) => json(Path::new(data)).context("reading the requests (data-file)")?,
            _ => bail!("{} must have data or data-file", path.display()),
        };
        Self::new(file, requests).with_context(|| format!("reading {}", path.display()))
    }

    fn new(file: File, requests: Value) -> anyhow::Result<Self> {
        let requests = match requests {
            Value::Array(requests) => requests,
            request => vec![request],
        };
        ensure!(!requests.is_empty(), "there are no requests");
        let time =
            |key: &str, text: &Option<String>| text.as_deref().map(|text| duration(text).with_context(|| format!("in {key}")));
        let length = time("duration", &file.duration).transpose()?;
        let rate = rate(&file, time("load-step-duration", &file.load_step_duration).transpose()?)?;
        let concurrency = file.concurrency.unwrap_or(DEFAULT_CONCURRENCY);
        let connections = file.connections.unwrap_or(1);
        ensure!(concurrency > 0 && connections > 0, "concurrency and connections must be at least 1");
        Ok(Self {
            name: file.name,
            call: file.call,
            host: file.host,
            requests,
            total: file.total.or(if length.is_none() { Some(DEFAULT_TOTAL) } else { None }),
            duration: length,
            rate,
            concurrency,
            connections,
            timeout: time("timeout", &file.timeout).transpose()?.unwrap_or(DEFAULT_TIMEOUT),
            skip_first: file.skip_first,
        })
    }
}

fn rate(file: &File, step_duration: Option<Duration>) -> anyhow::Result<Option<Rate>> {
    let rate = match file.load_schedule.as_deref() {
        None | Some("const") => file.rps.filter(|rps| *rps != 0.0).map(Rate::constant),
        Some("step") => {
            let (start, step, end) = (file.load_start, file.load_step, file.load_end);
            let (Some(start), Some(step), Some(end), Some(each)) = (start, step, end, step_duration) else {
                bail!("load-schedule step needs load-start, load-step, load-end and load-step-duration");
            };
            Some(Rate { start, step, end, each })
        }
        Some(other) => bail!("load-schedule \"{other}\" is none: expected const or step"),
    };
    if let Some(rate) = &rate {
        rate.check()?;
    }
    Ok(rate)
}

fn json<T: serde::de::DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("reading {}", path.display()))
}

/// `500ms`, `30s`, `5m`, `1h`.
pub(super) fn duration(text: &str) -> anyhow::Result<Duration> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let seconds = match unit {
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => bail!("\"{text}\" is no time: expected a number and ms, s, m or h"),
    };
    let number: f64 = number.parse().with_context(|| format!("\"{text}\" is no time"))?;
    Duration::try_from_secs_f64(number * seconds).with_context(|| format!("\"{text}\" is no time"))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn profiles_of_this_repository_are_understood() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/load");
        let profiles = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let mut names: Vec<String> = profiles
            .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
            .map(|path| Profile::new(json(&path).unwrap(), serde_json::json!({})).unwrap().name)
            .collect();
        names.sort();
        assert_eq!(names, ["knee", "latency", "mixed", "overload", "smoke", "soak", "throughput"]);
    }

    #[test]
    fn a_key_that_is_not_understood_is_named() {
        let file = |text: &str| serde_json::from_str::<File>(text);
        assert!(file(r#"{ "call": "a.B.C", "rpz": 3 }"#).unwrap_err().to_string().contains("rpz"));
        let stepped: File = file(r#"{ "call": "a.B.C", "load-schedule": "step" }"#).unwrap();
        assert!(Profile::new(stepped, serde_json::json!({})).unwrap_err().to_string().contains("load-start"));
    }

    #[test]
    fn times_have_units() {
        for (text, expected) in [("500ms", 0.5), ("30s", 30.0), ("1.5m", 90.0), ("1h", 3600.0)] {
            assert!((duration(text).unwrap().as_secs_f64() - expected).abs() < 1e-9, "{text}");
        }
        for text in ["", "5", "s", "-1s", "1d"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
