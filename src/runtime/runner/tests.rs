//! Runs of three tiny graphs whose outputs are computable by hand (`tests/fixtures/runtime/make.py`).
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{env, fs, path::Path};

use super::*;
use crate::{
    manifest::{Facet, Manifest, Tap},
    runtime::{FeatureKey, GraphTools, Library, PositionTable, Provider, RuntimeConfig, ThreadConfig},
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
[segmenter]
file = "segment.onnx"
sha256 = ""
form = "linear"
input = "backbone"
taps = [{ facet = "key", layer = 0 }]
upscale = 2
backbone_sha256 = ""
opset = 18
precision = "fp32"
parameters = 0
license = ""
source = ""
classes = [{ name = "red", color = [255, 0, 0] }, { name = "other", color = [0, 255, 255] }]
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
    prune: |onnx, _| Ok(onnx),
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
    runner_of(toml::from_str(MANIFEST).unwrap(), config)
}

fn runner_of(manifest: Manifest, config: &RuntimeConfig) -> ModelRunner {
    let dir = tempfile::tempdir().unwrap();
    for file in ["backbone.onnx", "lift.onnx", "segment.onnx"] {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/runtime").join(file);
        fs::copy(source, dir.path().join(file)).unwrap();
    }
    let zeros = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![1, 1, 3], &[0; 12]).unwrap();
    safetensors::serialize_to_file([("position", zeros)], None, &dir.path().join("position.safetensors")).unwrap();
    ModelRunner::new(&RuntimeModel::open(dir.path(), &manifest, config, &library(), TOOLS).unwrap())
}

fn key(height: u32, width: u32, lift_passes: u32) -> RunKey {
    RunKey::features([height, width], TAP, lift_passes)
}

/// Every pixel of one colour.
fn plain(height: u32, width: u32, colour: [u8; 3]) -> RgbImage {
    RgbImage::new(height, width, colour.repeat((height * width) as usize)).unwrap()
}

/// The map and both kinds of tokens.
fn with_tokens(key: RunKey, cls: bool, registers: bool) -> RunKey {
    let features = key.features.map(|features| FeatureKey { cls, registers, ..features });
    RunKey { features, ..key }
}

fn features(output: &RunOutput) -> &Features {
    output.features.as_ref().unwrap()
}

fn assert_close<const N: usize>(actual: &[f32], expected: [f32; N]) {
    let is_close = actual.len() == N && actual.iter().zip(expected).all(|(a, e)| (a - e).abs() <= TOLERANCE);
    assert!(is_close, "{actual:?} instead of {expected:?}");
}

#[test]
fn map_has_the_grid_of_the_image_and_its_position() {
    let outputs = runner().run(&key(4, 6, 0), &[plain(4, 6, [10, 20, 30])]).unwrap();
    let map = &features(&outputs[0]).map;
    assert_eq!((map.rows(), map.cols(), map.channels()), (2, 3, 3));
    assert_close(map.at(0, 0), [10.0, 20.0, 30.0]);
    assert_close(map.at(1, 2), [5010.0, 5020.0, 5030.0]);
    assert!(features(&outputs[0]).cls.is_none() && features(&outputs[0]).registers.is_none() && outputs[0].scores.is_none());
}

#[test]
fn each_image_of_a_batch_gets_its_own_part() {
    let images = [[1, 2, 3], [40, 50, 60], [7, 8, 9]].map(|colour| plain(2, 4, colour));
    let key = with_tokens(key(2, 4, 0), true, true);
    let outputs = runner().run(&key, &images).unwrap();
    assert_eq!(outputs.len(), 3);
    for (output, [r, g, b]) in outputs.iter().zip([[1.0, 2.0, 3.0], [40.0, 50.0, 60.0], [7.0, 8.0, 9.0]]) {
        let output = features(output);
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
        let [first, second] = [0, 1].map(|idx: usize| &features(&outputs[idx]).map);
        assert_eq!((first.rows(), first.cols()), (side, side));
        // Mean of the first image's pixels is 20, of the second's 1; the last cell's position is 3000.
        let n = passes as f32;
        assert_close(first.at(0, 0), [10.0 + 20.0 * n, 20.0 + 20.0 * n, 30.0 + 20.0 * n]);
        assert_close(second.at(side - 1, side - 1), [3001.0 + n; 3]);
    }
}

/// A model whose segmentation head reads features after LiFT.
fn lifted_manifest() -> Manifest {
    toml::from_str(&MANIFEST.replace("input = \"backbone\"", "input = \"lift\"\nlift_sha256 = \"\"")).unwrap()
}

#[test]
fn one_run_gives_scores_alone_or_beside_features() {
    let mut runner = runner();
    let images = [plain(4, 6, [10, 20, 30]), plain(4, 6, [1, 2, 3])];
    for passes in [None, Some(0), Some(2)] {
        let key = RunKey { segment: true, ..passes.map_or_else(|| RunKey::segment([4, 6]), |passes| key(4, 6, passes)) };
        let outputs = runner.run(&with_tokens(key, true, true), &images).unwrap();
        for (output, [r, g, b]) in outputs.iter().zip([[10.0, 20.0, 30.0], [1.0, 2.0, 3.0]]) {
            let scores = output.scores.as_ref().unwrap();
            assert_eq!((scores.rows(), scores.cols(), scores.channels()), (4, 6, 2));
            assert_close(scores.at(0, 1), [r, g + b]);
            assert_close(scores.at(3, 5), [5000.0 + r, 10_000.0 + g + b]);
            let sides = output.features.as_ref().map(|features| (features.map.rows(), features.map.cols()));
            assert_eq!(sides, passes.map(|passes| (2 << passes, 3 << passes)));
            assert_eq!(output.features.is_some(), output.features.as_ref().is_some_and(|features| features.cls.is_some()));
        }
    }
}

#[test]
fn a_head_that_reads_lifted_features_shares_the_first_pass_with_them() {
    let mut runner = runner_of(lifted_manifest(), &RuntimeConfig::default());
    for passes in [None, Some(0), Some(1), Some(3)] {
        let key = RunKey { segment: true, ..passes.map_or_else(|| RunKey::segment([2, 4]), |passes| key(2, 4, passes)) };
        let output = runner.run(&key, &[plain(2, 4, [10, 20, 30])]).unwrap().remove(0);
        let scores = output.scores.unwrap();
        assert_eq!((scores.rows(), scores.cols()), (4, 8), "twice the doubled grid");
        // One pass adds the mean of the pixels, 20, to each channel.
        assert_close(scores.at(0, 0), [30.0, 40.0 + 50.0]);
        assert_close(scores.at(3, 7), [1030.0, 1040.0 + 1050.0]);
        let Some(passes) = passes else { continue };
        let map = output.features.unwrap().map;
        assert_eq!((map.rows(), map.cols()), (1 << passes, 2 << passes));
        assert_close(map.at(0, 0), [10.0, 20.0, 30.0].map(|colour| colour + 20.0 * passes as f32));
    }
}

#[test]
fn scores_are_refused_of_a_model_without_a_head_and_a_run_for_nothing_always() {
    let plain_model = Manifest { segmenter: None, ..toml::from_str(MANIFEST).unwrap() };
    let mut without = runner_of(plain_model, &RuntimeConfig::default());
    let image = || [plain(2, 2, [0, 0, 0])];
    assert!(matches!(without.run(&RunKey::segment([2; 2]), &image()), Err(RuntimeError::NoSegmenter { .. })));
    let nothing = RunKey { segment: false, ..RunKey::segment([2; 2]) };
    assert!(matches!(runner().run(&nothing, &image()), Err(RuntimeError::NothingAsked { .. })));
}

#[test]
fn outputs_outlive_the_runner_and_later_runs() {
    let mut runner = runner();
    let first = runner.run(&key(2, 2, 0), &[plain(2, 2, [5, 6, 7])]).unwrap();
    runner.run(&key(2, 2, 0), &[plain(2, 2, [200, 200, 200])]).unwrap();
    drop(runner);
    assert_close(features(&first[0]).map.at(0, 0), [5.0, 6.0, 7.0]);
}

#[test]
fn more_views_than_sessions_are_kept_still_run() {
    let mut runner = runner();
    for (cls, registers, passes) in [(false, false, 2), (true, false, 2), (false, true, 1), (true, true, 2), (false, false, 2)] {
        let key = with_tokens(key(2, 2, passes), cls, registers);
        let outputs = runner.run(&key, &[plain(2, 2, [1, 1, 1])]).unwrap();
        let output = features(&outputs[0]);
        assert_eq!((output.cls.is_some(), output.registers.is_some()), (cls, registers));
    }
}

#[test]
fn what_the_model_does_not_offer_is_refused_by_name() {
    let mut runner = runner();
    let image = || [plain(4, 4, [0, 0, 0])];
    let odd = runner.run(&key(3, 4, 0), &[plain(3, 4, [0, 0, 0])]);
    assert!(matches!(odd, Err(RuntimeError::UnsupportedSize { height: 3, width: 4, .. })));
    let other = RunKey::features([4; 2], Tap { facet: Facet::Token, layer: 0 }, 0);
    assert!(matches!(runner.run(&other, &image()), Err(RuntimeError::UnsupportedTap { .. })));
    let mixed = runner.run(&key(4, 2, 0), &image());
    assert!(matches!(mixed, Err(RuntimeError::ImageSize { height: 4, width: 4, expected: [4, 2] })));
}

#[test]
fn a_profiled_warm_up_tells_who_ran_the_nodes_and_leaves_sessions_that_run() {
    let mut runner = runner();
    let both = RunKey { segment: true, ..key(2, 2, 1) };
    let placement = runner.warm_up_with(&both, true).unwrap().placement;
    assert_eq!(placement.keys().map(String::as_str).collect::<Vec<_>>(), ["cpu"]);
    assert!(placement["cpu"] >= 3, "three graphs have a node each, {placement:?}");
    assert!(runner.warm_up_with(&both, true).unwrap().placement.is_empty(), "no session was created for it");
    assert!(runner.warm_up(&key(2, 2, 0)).unwrap().placement.is_empty(), "there is nobody else");
    let outputs = runner.run(&key(2, 2, 0), &[plain(2, 2, [5, 6, 7])]).unwrap();
    assert_close(features(&outputs[0]).map.at(0, 0), [5.0, 6.0, 7.0]);
}

#[test]
fn warm_up_names_the_provider() {
    let mut runner = runner();
    let key = runner.model().default_key(4, 4);
    assert_eq!(key.feature_passes(), 1);
    assert_eq!(runner.warm_up(&key).unwrap().providers, ["cpu"]);
    assert!(library().versions().providers.contains(&"cpu"));
}

#[test]
fn a_run_that_is_ended_fails_and_the_next_one_does_not() {
    let mut runner = runner();
    let image = || [plain(4, 4, [1, 2, 3])];
    let termination = Termination::new().unwrap();
    termination.terminate().unwrap();
    assert!(matches!(runner.run_until(&key(4, 4, 1), &image(), termination), Err(RuntimeError::Run { .. })));
    assert!(runner.run_until(&key(4, 4, 1), &image(), Termination::new().unwrap()).is_ok());
    assert!(runner.run(&key(4, 4, 1), &image()).is_ok());
}

#[test]
fn bounded_spinning_is_accepted() {
    let threads = ThreadConfig { intra_op: 2, spin_us: 100, nice: 0 };
    let mut runner = runner_with(&RuntimeConfig { threads, ..RuntimeConfig::default() });
    assert!(runner.run(&key(2, 2, 0), &[plain(2, 2, [1, 2, 3])]).is_ok());
}

#[test]
fn required_provider_that_does_not_load_is_an_error_and_an_optional_one_is_not() {
    // No machine has this device. A library without CUDA refuses it by name, one with CUDA when the session is created.
    let cuda = |required| Provider::Cuda { required, device_id: 99, deny_cpu_fallback: false, tf32: false };
    let with =
        |required| runner_with(&RuntimeConfig { providers: vec![cuda(required), Provider::Cpu], ..RuntimeConfig::default() });
    let refused = with(true).warm_up(&key(2, 2, 0));
    let is_refused =
        matches!(refused, Err(RuntimeError::ProviderRequired { provider: "cuda", .. } | RuntimeError::Session { .. }));
    assert!(is_refused, "{refused:?}");
    assert_eq!(with(false).warm_up(&key(2, 2, 0)).unwrap().providers, ["cpu"]);
}
