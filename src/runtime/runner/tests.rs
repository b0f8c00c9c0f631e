//! Runs of two tiny graphs whose outputs are computable by hand (`tests/fixtures/runtime/make.py`).
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{env, fs, path::Path};

use super::*;
use crate::{
    manifest::{Facet, Manifest, Tap},
    runtime::{GraphTools, Library, PositionTable, Provider, RuntimeConfig, ThreadConfig},
};

/// Sums of small integers; only the mean of a few pixels rounds.
const TOLERANCE: f32 = 1e-4;

const TAP: Tap = Tap { facet: Facet::Key, layer: 0 };

const MANIFEST: &str = r#"
format = 1
name = "tiny"
version = 1
[architecture]
family = "vit"
width = 3
depth = 1
heads = 1
patch = 2
registers = 1
ffn = "mlp"
layer_scale = false
norm_eps = 1e-6
parameters = 0
[preprocess]
mean = [0, 0, 0]
std = [1, 1, 1]
interpolation = "bilinear"
resize = { policy = "native" }
[position]
file = "position.safetensors"
sha256 = ""
native_grid = [1, 1]
variant = "exact"
[backbone]
file = "backbone.onnx"
sha256 = ""
opset = 18
precision = "fp32"
facets = ["key"]
layers = [0]
default = { facet = "key", layer = 0 }
[lift]
file = "lift.onnx"
sha256 = ""
form = "official"
tap = { facet = "key", layer = 0 }
backbone_sha256 = ""
guidance = 8
opset = 18
precision = "fp32"
parameters = 0
license = ""
source = ""
[provenance]
description = ""
license = ""
source = ""
source_sha256 = ""
key_map = ""
importer = ""
"#;

/// The whole graph is a view too, and the position of cell i is 1000 i, whatever the stored table.
const TOOLS: GraphTools = GraphTools {
    prune: |onnx, _| Ok(onnx.to_vec()),
    fit_position: |_: &PositionTable, [rows, cols]| Ok((0..rows * cols * 3).map(|idx| 1000.0 * (idx / 3) as f32).collect()),
};

fn library() -> Library {
    let named = env::var_os("ORT_DYLIB_PATH");
    Library::load(None, named.as_deref().map(Path::new)).unwrap()
}

fn runner() -> ModelRunner {
    runner_with(&RuntimeConfig::default())
}

fn runner_with(config: &RuntimeConfig) -> ModelRunner {
    let dir = tempfile::tempdir().unwrap();
    for file in ["backbone.onnx", "lift.onnx"] {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/runtime").join(file);
        fs::copy(source, dir.path().join(file)).unwrap();
    }
    let zeros = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![1, 1, 3], &[0; 12]).unwrap();
    safetensors::serialize_to_file([("position", zeros)], None, &dir.path().join("position.safetensors")).unwrap();
    let manifest: Manifest = toml::from_str(MANIFEST).unwrap();
    ModelRunner::new(&RuntimeModel::open(dir.path(), &manifest, config, &library(), TOOLS).unwrap())
}

fn key(height: u32, width: u32, lift_passes: u32) -> RunKey {
    RunKey { height, width, tap: TAP, lift_passes, cls: false, registers: false }
}

/// Every pixel of one colour.
fn plain(height: u32, width: u32, colour: [u8; 3]) -> RgbImage {
    RgbImage::new(height, width, colour.repeat((height * width) as usize)).unwrap()
}

fn assert_close(actual: &[f32], expected: [f32; 3]) {
    let is_close = actual.len() == 3 && actual.iter().zip(expected).all(|(a, e)| (a - e).abs() <= TOLERANCE);
    assert!(is_close, "{actual:?} instead of {expected:?}");
}

#[test]
fn map_has_the_grid_of_the_image_and_its_position() {
    let outputs = runner().run(&key(4, 6, 0), &[plain(4, 6, [10, 20, 30])]).unwrap();
    let map = &outputs[0].map;
    assert_eq!((map.rows(), map.cols(), map.channels()), (2, 3, 3));
    assert_close(map.at(0, 0), [10.0, 20.0, 30.0]);
    assert_close(map.at(1, 2), [5010.0, 5020.0, 5030.0]);
    assert!(outputs[0].cls.is_none() && outputs[0].registers.is_none());
}

#[test]
fn each_image_of_a_batch_gets_its_own_part() {
    let images = [[1, 2, 3], [40, 50, 60], [7, 8, 9]].map(|colour| plain(2, 4, colour));
    let key = RunKey { cls: true, registers: true, ..key(2, 4, 0) };
    let outputs = runner().run(&key, &images).unwrap();
    assert_eq!(outputs.len(), 3);
    for (output, [r, g, b]) in outputs.iter().zip([[1.0, 2.0, 3.0], [40.0, 50.0, 60.0], [7.0, 8.0, 9.0]]) {
        assert_close(output.map.at(0, 1), [1000.0 + r, 1000.0 + g, 1000.0 + b]);
        assert_close(output.cls.as_ref().unwrap(), [r, g, b]);
        assert_close(output.registers.as_ref().unwrap(), [2.0 * r, 2.0 * g, 2.0 * b]);
    }
}

#[test]
fn every_lift_pass_doubles_the_map_and_sees_the_image() {
    for (passes, side) in [(1, 4), (2, 8), (3, 16)] {
        let images = [plain(4, 4, [10, 20, 30]), plain(4, 4, [1, 1, 1])];
        let outputs = runner().run(&key(4, 4, passes), &images).unwrap();
        assert_eq!((outputs[0].map.rows(), outputs[0].map.cols()), (side, side));
        // Mean of the first image's pixels is 20, of the second's 1; the last cell's position is 3000.
        let n = passes as f32;
        assert_close(outputs[0].map.at(0, 0), [10.0 + 20.0 * n, 20.0 + 20.0 * n, 30.0 + 20.0 * n]);
        assert_close(outputs[1].map.at(side - 1, side - 1), [3001.0 + n; 3]);
    }
}

#[test]
fn outputs_outlive_the_runner_and_later_runs() {
    let mut runner = runner();
    let first = runner.run(&key(2, 2, 0), &[plain(2, 2, [5, 6, 7])]).unwrap();
    runner.run(&key(2, 2, 0), &[plain(2, 2, [200, 200, 200])]).unwrap();
    drop(runner);
    assert_close(first[0].map.at(0, 0), [5.0, 6.0, 7.0]);
}

#[test]
fn more_views_than_sessions_are_kept_still_run() {
    let mut runner = runner();
    for (cls, registers, passes) in [(false, false, 2), (true, false, 2), (false, true, 1), (true, true, 2), (false, false, 2)] {
        let key = RunKey { cls, registers, ..key(2, 2, passes) };
        let outputs = runner.run(&key, &[plain(2, 2, [1, 1, 1])]).unwrap();
        assert_eq!((outputs[0].cls.is_some(), outputs[0].registers.is_some()), (cls, registers));
    }
}

#[test]
fn what_the_model_does_not_offer_is_refused_by_name() {
    let mut runner = runner();
    let image = || [plain(4, 4, [0, 0, 0])];
    let odd = runner.run(&key(3, 4, 0), &[plain(3, 4, [0, 0, 0])]);
    assert!(matches!(odd, Err(RuntimeError::UnsupportedSize { height: 3, width: 4, .. })));
    let other = RunKey { tap: Tap { facet: Facet::Token, layer: 0 }, ..key(4, 4, 0) };
    assert!(matches!(runner.run(&other, &image()), Err(RuntimeError::UnsupportedTap { .. })));
    let mixed = runner.run(&key(4, 2, 0), &image());
    assert!(matches!(mixed, Err(RuntimeError::ImageSize { height: 4, width: 4, expected: [4, 2] })));
}

#[test]
fn warm_up_names_the_provider() {
    let mut runner = runner();
    let key = runner.model().default_key(4, 4);
    assert_eq!(key.lift_passes, 1);
    assert_eq!(runner.warm_up(&key).unwrap(), ["cpu"]);
    assert!(library().versions().providers.contains(&"cpu"));
}

#[test]
fn bounded_spinning_is_accepted() {
    let threads = ThreadConfig { intra_op: 2, spin_us: 100 };
    let mut runner = runner_with(&RuntimeConfig { threads, ..RuntimeConfig::default() });
    assert!(runner.run(&key(2, 2, 0), &[plain(2, 2, [1, 2, 3])]).is_ok());
}

#[test]
fn required_provider_that_does_not_load_is_an_error_and_an_optional_one_is_not() {
    // No machine has this device. A library without CUDA refuses it by name, one with CUDA when the session is created.
    let cuda = |required| Provider::Cuda { required, device_id: 99, deny_cpu_fallback: false };
    let with =
        |required| runner_with(&RuntimeConfig { providers: vec![cuda(required), Provider::Cpu], ..RuntimeConfig::default() });
    let refused = with(true).warm_up(&key(2, 2, 0));
    let is_refused =
        matches!(refused, Err(RuntimeError::ProviderRequired { provider: "cuda", .. } | RuntimeError::Session { .. }));
    assert!(is_refused, "{refused:?}");
    assert_eq!(with(false).warm_up(&key(2, 2, 0)).unwrap(), ["cpu"]);
}

#[test]
fn not_finite_values_are_found() {
    assert!(is_finite(&[0.0, -0.0, f32::MAX, f32::MIN, f32::MIN_POSITIVE]));
    for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        assert!(!is_finite(&[1.0, bad, 2.0]));
    }
}
