//! `densevit serve` as a process: signals, configuration.

use std::process::Stdio;

use crate::support::{Serving, densevit, models, run};

#[test]
fn sigterm_ends_an_idle_server_with_status_zero() {
    let mut serving = Serving::start();
    serving.signal("-TERM");
    assert_eq!(serving.child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let mut serving = {
        // A drain that would take an hour.
        let mut command = densevit();
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--no-admin", "--set", "shutdown.delay_s=3600", "--models"])
            .arg(models());
        Serving::start_as(command.stderr(Stdio::piped()))
    };
    serving.signal("-TERM");
    // The first must have been seen: signals of one kind that arrive together are one.
    let mut log = std::io::BufReader::new(serving.child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("draining") {
        line.clear();
        assert!(std::io::BufRead::read_line(&mut log, &mut line).unwrap() > 0, "the server says that it drains");
    }
    serving.signal("-INT");
    assert_eq!(serving.child.wait().unwrap().code(), Some(130));
}

#[test]
fn the_configuration_is_refused_by_key_and_printed_on_request() {
    let error = run(&["serve", "--set", "batch.max_bach_size=4", "--print-config"]).expect_failure();
    assert!(error.contains("max_bach_size"), "{error}");
    let error = run(&["serve", "--set", "batch.max_batch_size=many", "--print-config"]).expect_failure();
    assert!(error.contains("max_batch_size"), "{error}");
    let printed = run(&["serve", "--set", "batch.max_batch_size=4", "--print-config"]).expect_success().stdout;
    assert!(printed.contains("max_batch_size = 4"), "{printed}");
}

#[test]
fn a_server_that_cannot_start_says_why() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let models = models().to_str().unwrap();
    let cases: [(&[&str], &str); 4] = [
        (&["--listen", &address, "--models", models], "grpc.listen"),
        (&["--listen", "127.0.0.1:0", "--models", "/nowhere"], "/nowhere"),
        (&["--listen", "127.0.0.1:0", "--library", "/nowhere/libonnxruntime.so", "--models", models], "make setup"),
        (&["--listen", "127.0.0.1:0", "--default-model", "huge", "--models", models], "models.default"),
    ];
    for (arguments, words) in cases {
        let error = run(&[&["serve", "--no-admin"], arguments].concat()).expect_failure();
        assert!(error.contains(words), "{arguments:?}: {error}");
    }
}

#[test]
fn a_required_gpu_that_is_not_there_stops_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("cuda.toml");
    std::fs::write(&config, "runtime.providers = [{ name = \"cuda\", required = true }]\n").unwrap();
    let config = config.to_str().unwrap();
    let models = models().to_str().unwrap();
    let error = run(&["serve", "--listen", "127.0.0.1:0", "--no-admin", "--models", models, "--config", config]).expect_failure();
    assert!(error.contains("cuda is required"), "{error}");
}

#[test]
fn a_peer_cannot_fill_the_log() {
    let mut serving = {
        let mut command = densevit();
        command.args(["serve", "--listen", "127.0.0.1:0", "--no-admin", "--models"]).arg(models());
        Serving::start_as(command.stderr(Stdio::piped()))
    };
    let mut log = serving.child.stderr.take().unwrap();
    let reading = std::thread::spawn(move || {
        let mut text = String::new();
        std::io::Read::read_to_string(&mut log, &mut text).unwrap();
        text
    });
    let mut peer = std::net::TcpStream::connect(&serving.address).unwrap();
    // HTTP/2: preface, settings, answers to pings that were never sent, and one ping that is.
    let frame = |kind: u8, flags: u8, payload: &[u8]| {
        [&[0, 0, u8::try_from(payload.len()).unwrap(), kind, flags, 0, 0, 0, 0], payload].concat()
    };
    let mut sent = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(4, 0, &[])].concat();
    (0..1000).for_each(|_| sent.extend(frame(6, 1, &[7; 8])));
    sent.extend(frame(6, 0, b"the last"));
    std::io::Write::write_all(&mut peer, &sent).unwrap();
    let mut answer = Vec::new();
    while !answer.windows(8).any(|part| part == b"the last") {
        let mut part = [0; 256];
        let n_bytes = std::io::Read::read(&mut peer, &mut part).unwrap();
        assert!(n_bytes > 0, "the server reads on");
        answer.extend_from_slice(&part[..n_bytes]);
    }
    serving.signal("-TERM");
    assert_eq!(serving.child.wait().unwrap().code(), Some(0));
    let log = reading.join().unwrap();
    assert!(!log.contains("PING"), "{log}");
}
