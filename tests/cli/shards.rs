//! A folder of images that several workers extract, each its shard: what a Job of a cluster does.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use crate::support::{Outcome, Serving, densevit, models, photos, run};

/// The arguments of one worker, with what differs between tests.
fn worker<'a>(images: &'a str, out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let models = models().to_str().unwrap();
    [["extract", images, "-o", out, "--native", "--models", models].as_slice(), more].concat()
}

fn outputs(folder: &Path) -> BTreeSet<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| Path::new(name).extension().is_some_and(|extension| extension == "npy")).collect()
}

/// Outcomes in a journal, by the name of the image.
fn journal(path: &Path) -> Vec<(String, String)> {
    let field = |line: &serde_json::Value, key: &str| line[key].as_str().unwrap().to_owned();
    let lines = fs::read_to_string(path).unwrap();
    let lines = lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let name = |line: &serde_json::Value| Path::new(&field(line, "image")).file_name().unwrap().to_str().unwrap().to_owned();
    lines.map(|line| (name(&line), field(&line, "outcome"))).collect()
}

#[test]
fn shards_share_the_images_of_a_folder_without_overlap_and_without_rest() {
    let (input, output) = (photos(9, false), tempfile::tempdir().unwrap());
    let mut n_done = 0;
    for shard in ["0/3", "1/3", "2/3"] {
        let out = output.path().join(shard.replace('/', "-of-"));
        fs::create_dir(&out).unwrap();
        run(&worker(input.path().to_str().unwrap(), out.to_str().unwrap(), &["--shard", shard])).expect_success();
        n_done += outputs(&out).len();
    }
    let of = |shard: &str| outputs(&output.path().join(shard));
    let all: BTreeSet<String> = ["0-of-3", "1-of-3", "2-of-3"].into_iter().flat_map(of).collect();
    assert_eq!((n_done, all), (9, (0..9).map(|idx| format!("photo_{idx}.npy")).collect()));
}

#[test]
fn refused_images_end_with_status_three_are_journalled_and_not_tried_again() {
    let (input, output) = (photos(2, true), tempfile::tempdir().unwrap());
    let path = output.path().join("journals/0.jsonl");
    let (images, out) = (input.path().to_str().unwrap(), output.path().to_str().unwrap());
    let arguments = worker(images, out, &["--journal", path.to_str().unwrap()]);
    let first = run(&arguments);
    assert!(first.code == Some(3) && first.stderr.contains("1 of 3 images were refused"), "{first:?}");
    let mut lines = journal(&path);
    lines.sort();
    let expected = [("broken.jpg", "refused"), ("photo_0.png", "done"), ("photo_1.png", "done")];
    assert_eq!(lines, expected.map(|(image, outcome)| (image.to_owned(), outcome.to_owned())));

    // Nothing is due, but the image that is missing is still missing.
    let second = run(&arguments);
    assert!(second.code == Some(3) && second.stdout.contains("skipped 2, failed 1"), "{second:?}");
    assert_eq!(journal(&path).len(), 3, "nothing new happened");

    // An output without a line: its worker was stopped between the two.
    fs::write(&path, "").unwrap();
    fs::remove_file(input.path().join("broken.jpg")).unwrap();
    run(&arguments).expect_success();
    assert!(journal(&path).iter().all(|(_, outcome)| outcome == "found"), "{:?}", journal(&path));

    // --force does everything again.
    run(&[arguments.as_slice(), &["--force"]].concat()).expect_success();
    assert_eq!(journal(&path).len(), 4);
}

#[test]
fn failures_that_may_pass_end_with_status_one_and_are_tried_again() {
    let (input, output) = (photos(2, true), tempfile::tempdir().unwrap());
    let (images, out) = (input.path().to_str().unwrap(), output.path().to_str().unwrap());
    let path = output.path().join("journal.jsonl");
    let arguments = worker(images, out, &["--journal", path.to_str().unwrap()]);
    // Where an output belongs there is a folder: the disk's fault, not the image's.
    fs::create_dir(output.path().join("photo_1.npy")).unwrap();
    let first = run(&arguments);
    assert!(first.code == Some(1) && first.stderr.contains("2 of 3 images failed"), "{first:?}");
    assert!(journal(&path).contains(&("photo_1.png".into(), "failed".into())), "{:?}", journal(&path));
    fs::remove_dir(output.path().join("photo_1.npy")).unwrap();
    let second = run(&arguments);
    assert_eq!(second.code, Some(3), "only the broken image is left: {second:?}");
    assert!(outputs(output.path()).contains("photo_1.npy"));
}

#[test]
fn a_worker_that_is_stopped_leaves_whole_files_and_the_next_one_does_the_rest() {
    let (serving, input, output) = (Serving::start(), photos(60, false), tempfile::tempdir().unwrap());
    let (images, out) = (input.path().to_str().unwrap(), output.path().to_str().unwrap());
    let arguments = ["extract", images, "-o", out, "--native", "--in-flight", "1", "--server", &serving.address];
    let stopped = densevit().args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let give_up = Instant::now() + Duration::from_secs(60);
    while outputs(output.path()).is_empty() {
        assert!(Instant::now() < give_up, "no output after a minute");
        std::thread::yield_now();
    }
    let status = std::process::Command::new("kill").args(["-TERM", &stopped.id().to_string()]).status().unwrap();
    assert!(status.success());
    let stopped: Outcome = stopped.wait_with_output().unwrap().into();
    assert!(stopped.code == Some(1) && stopped.stderr.contains("interrupted"), "{stopped:?}");
    let n_before = outputs(output.path()).len();
    assert!(n_before < 60, "it was stopped too late to show anything");

    let next = run(&arguments).expect_success().stdout;
    assert!(next.contains(&format!("extracted {} image(s)", 60 - n_before)), "{n_before}: {next}");
    assert!(next.contains(&format!("skipped {n_before}")), "{next}");
    let lengths =
        outputs(output.path()).iter().map(|name| fs::metadata(output.path().join(name)).unwrap().len()).collect::<BTreeSet<_>>();
    assert_eq!((outputs(output.path()).len(), lengths.len()), (60, 1), "all there, all of one length: {lengths:?}");
}

#[test]
fn a_shard_needs_a_folder_and_numbers_that_fit() {
    let input = photos(1, false);
    let photo = input.path().join("photo_0.png");
    let single = run(&worker(photo.to_str().unwrap(), "one.npy", &["--shard", "0/2"]));
    assert!(single.code == Some(1) && single.stderr.contains("give a folder"), "{single:?}");
    for shard in ["2/2", "one"] {
        let wrong = run(&worker(input.path().to_str().unwrap(), "out", &["--shard", shard]));
        assert!(wrong.code == Some(2) && wrong.stderr.contains("--shard"), "{wrong:?}");
    }
}
