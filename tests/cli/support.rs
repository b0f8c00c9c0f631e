//! Runs the binary, on a repository with a tiny model that it imported itself.

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::OnceLock,
};

use tempfile::TempDir;

/// What a command left: its exit status and both outputs as text.
#[derive(Debug)]
pub struct Outcome {
    pub is_success: bool,
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Outcome {
    fn from(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let status = output.status;
        Self { is_success: status.success(), code: status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }
}

impl Outcome {
    pub fn expect_success(self) -> Self {
        assert!(self.is_success, "{self:?}");
        self
    }

    /// The one line on standard error of a command that failed.
    pub fn expect_failure(self) -> String {
        assert!(!self.is_success, "must fail: {self:?}");
        self.stderr
    }
}

/// The binary, where it finds ONNX Runtime, and nothing of the caller's environment that could change its configuration.
pub fn densevit() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_densevit"));
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    let configures =
        |name: &std::ffi::OsStr| ["DENSEVIT__", "OTEL_"].iter().any(|prefix| name.to_string_lossy().starts_with(prefix));
    std::env::vars_os().filter(|(name, _)| configures(name)).for_each(|(name, _)| {
        command.env_remove(name);
    });
    command
}

pub fn run(arguments: &[&str]) -> Outcome {
    densevit().args(arguments).output().unwrap().into()
}

pub fn fixture(path: &str) -> String {
    format!("{}/tests/fixtures/{path}", env!("CARGO_MANIFEST_DIR"))
}

/// A repository with the model "tiny" (DINO, patch 16, 64 channels, a LiFT head), imported once by the command line.
pub fn models() -> &'static Path {
    static MODELS: OnceLock<TempDir> = OnceLock::new();
    MODELS
        .get_or_init(|| {
            let folder = tempfile::tempdir().unwrap();
            let (weights, head) = (fixture("backbones/dino_s16.safetensors"), fixture("lift/lift_c64_p16.safetensors"));
            let out = folder.path().to_str().unwrap();
            run(&["import", &weights, "--name", "tiny", "--lift", &head, "--out", out]).expect_success();
            folder
        })
        .path()
}

/// A folder with `photo_0.png` ... and, when asked for, `broken.jpg`.
pub fn photos(n_good: usize, with_broken: bool) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for idx in 0..n_good {
        let path: PathBuf = folder.path().join(format!("photo_{idx}.png"));
        image::RgbImage::from_fn(64, 48, |x, y| image::Rgb([u8::try_from(x + y).unwrap(), 7, 9])).save(path).unwrap();
    }
    if with_broken {
        std::fs::write(folder.path().join("broken.jpg"), b"\xFF\xD8\xFF no more").unwrap();
    }
    folder
}

/// `densevit serve` on a free port; killed when dropped.
pub struct Serving {
    pub child: Child,
    pub address: String,
}

impl Serving {
    pub fn start() -> Self {
        let mut command = densevit();
        command.args(["serve", "--listen", "127.0.0.1:0", "--no-admin", "--models"]).arg(models());
        Self::start_as(command.stderr(Stdio::null()))
    }

    /// Runs the command, a `serve`, and waits until it listens.
    pub fn start_as(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on ").unwrap_or_else(|| panic!("{line:?}")).to_owned();
        Self { child, address }
    }

    pub fn signal(&self, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap().success());
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _already_dead = self.child.kill();
        let _already_reaped = self.child.wait();
    }
}
