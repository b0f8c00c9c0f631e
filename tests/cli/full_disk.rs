//! Commands that write, where there is no room: files may not grow beyond a limit, and a write that would fails as on a full disk.

use std::{fs, path::Path, process::Command};

use serde_json::json;

use crate::support::{Outcome, Serving, densevit, fixture, models, photos, run};

/// Runs a command whose files may have so many KiB. The signal that comes with the failed write is ignored, as a full disk sends none.
fn run_in(limit_kib: u32, arguments: &[&str]) -> Outcome {
    let program = densevit();
    let mut shell = Command::new("sh");
    // Blocks of 512 bytes (POSIX, `ulimit`).
    shell.args(["-c", "trap '' XFSZ; ulimit -f \"$1\"; shift; exec \"$@\"", "sh", &(2 * limit_kib).to_string()]);
    shell.current_dir(program.get_current_dir().unwrap()).arg(program.get_program()).args(arguments);
    program.get_envs().filter(|(_, value)| value.is_none()).for_each(|(name, _)| {
        shell.env_remove(name);
    });
    shell.output().unwrap().into()
}

/// Everything in a folder, hidden files too.
fn contents(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn outputs_that_find_no_room_are_named_and_leave_no_half_file() {
    let (serving, input, output) = (Serving::start(), photos(2, false), tempfile::tempdir().unwrap());
    let (server, images) = (serving.address.as_str(), input.path().to_str().unwrap());
    let photo = input.path().join("photo_0.png");
    let photo = photo.to_str().unwrap();
    let at = |name: &str| output.path().join(name).to_str().unwrap().to_owned();
    let profile = input.path().join("profile.json");
    let request = json!({ "image": { "raw": { "height": 32, "width": 32, "data": "A".repeat(4096) } } });
    let call = "densevit.v1.DenseVision.ExtractChunked";
    let few = json!({ "name": "few", "call": call, "data": request, "timeout": "20s", "total": 60, "concurrency": 2 });
    fs::write(&profile, few.to_string()).unwrap();
    let profile = profile.to_str().unwrap();
    // Each would write more than 4 KiB.
    let cases: [(&str, &[&str]); 4] = [
        ("one.npy", &["extract", photo, "--native", "-o"]),
        ("one.safetensors", &["extract", photo, "--native", "--format", "safetensors", "-o"]),
        ("one.png", &["view", photo, "--native", "-o"]),
        ("one.json", &["load", profile, "-o"]),
    ];
    for (name, arguments) in cases {
        let out = at(name);
        let error = run_in(4, &[arguments, &[&out, "--server", server]].concat()).expect_failure();
        assert!(error.contains(&out) && !error.contains("panicked"), "{name}: {error}");
        assert_eq!(contents(output.path()), [""; 0], "{name}");
    }
    let folder = run_in(4, &["extract", images, "--native", "-o", &at("."), "--server", server]);
    assert!(folder.code != Some(0) && folder.stderr.contains("photo_1.npy"), "{folder:?}");
    assert_eq!(contents(output.path()), [""; 0]);
}

#[test]
fn a_file_that_is_there_outlives_a_write_that_finds_no_room() {
    let (serving, input) = (Serving::start(), photos(1, false));
    let (photo, out) = (input.path().join("photo_0.png"), input.path().join("features.npy"));
    fs::write(&out, b"older").unwrap();
    let arguments =
        ["extract", photo.to_str().unwrap(), "--native", "--force", "-o", out.to_str().unwrap(), "--server", &serving.address];
    run_in(4, &arguments).expect_failure();
    assert_eq!(fs::read(&out).unwrap(), b"older");
}

#[test]
fn a_journal_that_finds_no_room_ends_the_run_and_is_taken_up_later() {
    let (serving, input, output) = (Serving::start(), photos(3, false), tempfile::tempdir().unwrap());
    let journal = output.path().join("journal.jsonl");
    // Nearly full: 16 KiB is more than an array needs, and holds no line of three more.
    let line = json!({ "image": "x.jpg", "out": "x.npy", "outcome": "done" }).to_string() + "\n";
    fs::write(&journal, line.repeat((16 << 10) / line.len())).unwrap();
    let out = output.path().join("arrays");
    fs::create_dir(&out).unwrap();
    let (images, out, journal) = (input.path().to_str().unwrap(), out.to_str().unwrap(), journal.to_str().unwrap());
    let arguments = ["extract", images, "--native", "-o", out, "--journal", journal, "--server", &serving.address];
    let error = run_in(16, &arguments).expect_failure();
    assert!(error.contains(journal) && !error.contains("panicked"), "{error}");
    run(&arguments).expect_success();
    assert_eq!(contents(Path::new(out)), ["photo_0.npy", "photo_1.npy", "photo_2.npy"]);
    assert!(fs::read_to_string(journal).unwrap().contains("photo_2.npy"));
}

#[test]
fn an_import_that_finds_no_room_leaves_no_model_and_no_scratch() {
    let output = tempfile::tempdir().unwrap();
    let out = output.path().to_str().unwrap();
    let (weights, head) = (fixture("backbones/dino_s16.safetensors"), fixture("lift/lift_c64_p16.safetensors"));
    let error = run_in(16, &["import", &weights, "--name", "tiny", "--lift", &head, "--out", out]).expect_failure();
    assert!(error.contains(out) && !error.contains("panicked"), "{error}");
    assert_eq!(contents(output.path()), [""; 0]);
    // What is there stays.
    let served = contents(&models().join("tiny/1"));
    let again = ["import", &weights, "--name", "tiny", "--lift", &head, "--force", "--out", models().to_str().unwrap()];
    run_in(16, &again).expect_failure();
    assert_eq!(contents(&models().join("tiny/1")), served);
}
