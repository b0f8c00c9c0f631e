//! `densevit load` against a server of another process.

use std::{fs, path::Path};

use serde_json::{Value, json};

use crate::support::{Outcome, Serving, run};

/// A profile of features of a black image of 32 x 32 pixels: 3,072 zeros in base64.
fn profile(folder: &Path, more: Value) -> String {
    let request = json!({ "image": { "raw": { "height": 32, "width": 32, "data": "A".repeat(4096) } } });
    let mut profile =
        json!({ "name": "few", "call": "densevit.v1.DenseVision.ExtractChunked", "data": request, "timeout": "20s" });
    profile.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let path = folder.join("profile.json");
    fs::write(&path, profile.to_string()).unwrap();
    path.to_str().unwrap().to_owned()
}

fn load(serving: &Serving, profile: &str, more: &[&str]) -> Outcome {
    run(&[&["load", profile, "--server", &serving.address], more].concat())
}

#[test]
fn an_open_and_a_closed_loop_send_what_the_profile_says_and_write_what_ghz_writes() {
    let (serving, folder) = (Serving::start(), tempfile::tempdir().unwrap());
    let output = folder.path().join("result.json");
    for more in [json!({ "total": 12, "concurrency": 3, "connections": 2 }), json!({ "total": 12, "rps": 100 })] {
        let profile = profile(folder.path(), more.clone());
        let printed = load(&serving, &profile, &["-o", output.to_str().unwrap(), "--slo", "failed<1%"]).expect_success().stdout;
        assert!(printed.contains("few: 12 requests"), "{more}: {printed}");
        let result: Value = serde_json::from_str(&fs::read_to_string(&output).unwrap()).unwrap();
        assert_eq!((&result["count"], &result["statusCodeDistribution"]), (&json!(12), &json!({ "OK": 12 })), "{more}");
        let details = result["details"].as_array().unwrap();
        assert!(details.len() == 12 && details.iter().all(|detail| detail["latency"].as_u64() > Some(0)), "{more}");
        let percentiles = result["latencyDistribution"].as_array().unwrap().iter().map(|row| row["percentage"].as_f64());
        assert!(percentiles.eq([10.0, 25.0, 50.0, 90.0, 95.0, 99.0, 99.9].map(Some)), "{more}");
    }
}

#[test]
fn objectives_that_are_missed_end_with_status_four_and_refused_requests_are_counted() {
    let (serving, folder) = (Serving::start(), tempfile::tempdir().unwrap());
    let slow = load(&serving, &profile(folder.path(), json!({ "total": 3 })), &["--slo", "p50<0ms"]);
    assert!(slow.code == Some(4) && slow.stderr.contains("p50 is"), "{slow:?}");
    let no_image = profile(folder.path(), json!({ "total": 3, "data": {} }));
    let refused = load(&serving, &no_image, &["--slo", "failed<50%"]);
    assert!(refused.code == Some(4) && refused.stderr.contains("100.00 % failed"), "{refused:?}");
    assert!(refused.stdout.contains("InvalidArgument"), "{refused:?}");
}

#[test]
fn profiles_that_cannot_be_meant_are_refused_before_anything_is_sent() {
    let folder = tempfile::tempdir().unwrap();
    for (more, words) in [
        (json!({ "call": "densevit.v1.DenseVision.Imagine" }), "is no method"),
        (json!({ "data": { "imagine": 1 } }), "imagine"),
        (json!({ "rpz": 1 }), "rpz"),
        (json!({ "rps": -1 }), "above zero"),
        (json!({}), "no server"),
    ] {
        let error = run(&["load", &profile(folder.path(), more.clone())]).expect_failure();
        assert!(error.contains(words), "{more}: {error}");
    }
}
