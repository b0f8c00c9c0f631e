//! Precedence and strictness of the configuration.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{collections::HashMap, io::Write as _};

use super::*;

fn environment(pairs: &[(&str, &str)]) -> Environment {
    let source: HashMap<String, String> = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Environment::with_prefix(ENV_PREFIX)
        .prefix_separator("__")
        .separator("__")
        .try_parsing(true)
        .list_separator(",")
        .with_list_parse_key("models.load")
        .source(Some(source))
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

#[test]
fn nothing_given_means_the_documented_defaults() {
    let config = ServeConfig::from_sources(None, environment(&[]), &[]).unwrap();
    assert_eq!(config, ServeConfig::default());
}

#[test]
fn flags_beat_environment_beats_file_beats_defaults() {
    let file = file("[limits]\nmax_points = 1\nmax_in_flight = 1\nmax_image_pixels = 1\n");
    let environment = environment(&[("DENSEVIT__LIMITS__MAX_POINTS", "2"), ("DENSEVIT__LIMITS__MAX_IN_FLIGHT", "2")]);
    let flags = [("limits.max_points".to_owned(), "3".to_owned())];
    let limits = ServeConfig::from_sources(Some(file.path()), environment, &flags).unwrap().limits;
    assert_eq!((limits.max_points, limits.max_in_flight, limits.max_image_pixels), (3, 2, 1));
    assert_eq!(limits.max_image_bytes, Limits::default().max_image_bytes);
}

#[test]
fn unknown_keys_are_errors_that_name_the_key() {
    let file = file("[limits]\nmax_pointz = 1\n");
    let error = ServeConfig::from_sources(Some(file.path()), environment(&[]), &[]).unwrap_err();
    assert!(error.to_string().contains("max_pointz"), "{error}");
    let error = ServeConfig::from_sources(None, environment(&[("DENSEVIT__LIMITS__MAX_POINTZ", "1")]), &[]).unwrap_err();
    assert!(error.to_string().contains("max_pointz"), "{error}");
}

#[test]
fn the_printed_configuration_can_be_read_back() {
    let config = ServeConfig::default();
    let file = file(&config.to_toml().unwrap());
    assert_eq!(ServeConfig::from_sources(Some(file.path()), environment(&[]), &[]).unwrap(), config);
}

#[test]
fn lists_come_from_the_environment_separated_by_commas() {
    let config = ServeConfig::from_sources(None, environment(&[("DENSEVIT__MODELS__LOAD", "a,b")]), &[]).unwrap();
    assert_eq!(config.models.load, ["a", "b"]);
}

#[test]
fn the_sample_file_shows_every_key_with_its_default_and_the_cuda_sample_requires_the_gpu() {
    let sample = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name);
    let documented = ServeConfig::from_sources(Some(&sample("serve.toml")), environment(&[]), &[]).unwrap();
    assert_eq!(documented, ServeConfig::default());
    // `library` has no default that a file could show.
    let text = std::fs::read_to_string(sample("serve.toml")).unwrap();
    let printed = ServeConfig::default().to_toml().unwrap();
    for key in printed.lines().filter_map(|line| Some(line.split_once(" = ")?.0)) {
        assert!(text.contains(&format!("{key} = ")), "{key}");
    }
    let cuda = ServeConfig::from_sources(Some(&sample("serve.cuda.toml")), environment(&[]), &[]).unwrap();
    assert!(matches!(cuda.runtime.providers[..], [crate::runtime::Provider::Cuda { required: true, .. }]));
}
