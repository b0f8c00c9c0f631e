//! Segmentation heads as graphs: the published decoder against its authors' module, all three forms against PyTorch at odd grids.

use std::path::PathBuf;

use densevit::{
    graph::{SegmenterOptions, build_segmenter},
    manifest::{Precision, SegmentForm, io_names},
    onnx::save,
    runtime::{Array, run_graph},
    weights::{self, assemble_segment},
};

use crate::support::{Tensor, fixture, library, tensors};

/// Largest error of a score in half precision. Logits of the fixtures reach tens, where half precision keeps hundredths.
const FP16_SCORES: f32 = 0.02;

/// Channels of the taps in all fixtures.
const C: usize = 64;

struct Case {
    name: &'static str,
    form: SegmentForm,
    heads: u32,
    is_halved: &'static [bool],
    upscale: u32,
}

const fn case(name: &'static str, form: SegmentForm, is_halved: &'static [bool]) -> Case {
    Case { name, form, heads: 2, is_halved, upscale: 4 }
}

const CASES: [Case; 5] = [
    case("segvit_s1", SegmentForm::Segvit, &[false]),
    case("segvit_s2", SegmentForm::Segvit, &[false, false]),
    case("segvit_s3", SegmentForm::Segvit, &[true, true, false]),
    case("shrunk", SegmentForm::Shrunk, &[false, true]),
    case("linear", SegmentForm::Linear, &[false]),
];

impl Case {
    /// Writes the head as a graph.
    fn graph(&self, precision: Precision) -> (tempfile::TempDir, PathBuf) {
        let file = weights::read(&fixture(&format!("segvit/{}.safetensors", self.name))).unwrap();
        let head = assemble_segment(file, C, Some(self.heads)).unwrap();
        let shape = head.shape();
        assert_eq!((shape.form, shape.n_taps, shape.channels), (self.form, self.is_halved.len(), C), "{}", self.name);
        let options = SegmenterOptions { precision, upscale: self.upscale, is_halved: self.is_halved.to_vec() };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("segment.onnx");
        save(build_segmenter(&head, &options).unwrap(), &path, u64::MAX).unwrap();
        (folder, path)
    }

    /// Runs the head on maps `[B, C, h, w]`.
    fn run(&self, precision: Precision, taps: &[&Tensor], outputs: &[&str]) -> Vec<Array> {
        let (_folder, path) = self.graph(precision);
        let names: Vec<String> = (0..taps.len()).map(io_names::map).collect();
        let inputs: Vec<(&str, Array)> =
            names.iter().map(String::as_str).zip(taps.iter().map(|tap| array(&tap.channels_last()))).collect();
        run_graph(&library(), &path, &inputs, outputs).unwrap()
    }
}

fn array(tensor: &Tensor) -> Array {
    Array { shape: tensor.shape.clone(), values: tensor.values.clone() }
}

#[test]
fn the_published_decoder_agrees_with_its_authors_module() {
    // From 6 x 6 cells to the 96 x 96 of the reference.
    let case = Case { heads: 4, upscale: 16, ..case("atm_k7_c64_d32", SegmentForm::Segvit, &[false; 3]) };
    let io = tensors("segvit/atm_k7_c64_d32_io.safetensors");
    let taps = ["tap_deep", "tap_middle", "tap_shallow"].map(|tap| &io[tap]);
    let outputs = [io_names::CLASS_LOGITS, io_names::MASK_LOGITS, io_names::PROBABILITIES];
    let got = case.run(Precision::Fp32, &taps, &outputs);
    io["class_logits"].assert_close(&got[0].values, "class logits");
    assert_eq!(got[1].shape, [2, 7, 6, 6]);
    io["mask_logits"].assert_close(&upsampled(&got[1], 16), "mask logits");
    let semantic = io["semantic_map"].channels_last();
    assert_eq!(got[2].shape, semantic.shape);
    semantic.assert_close(&got[2].values, "semantic map");
}

/// `[B, K, h, w]` by a factor, bilinear, half-pixel centres, written once more.
fn upsampled(maps: &Array, factor: usize) -> Vec<f32> {
    let [n_batch, n_classes, rows, cols] = maps.shape[..].try_into().unwrap();
    let source = |idx: usize, n: usize| {
        let centre = ((idx as f32 + 0.5) / factor as f32 - 0.5).max(0.0);
        let first = centre as usize;
        (first, (first + 1).min(n - 1), centre - first as f32)
    };
    let mut values = Vec::new();
    for map in maps.values.chunks(rows * cols).take(n_batch * n_classes) {
        for row in 0..rows * factor {
            for col in 0..cols * factor {
                let ((top, bottom, y), (left, right, x)) = (source(row, rows), source(col, cols));
                let along = |row: usize| map[row * cols + left] * (1.0 - x) + map[row * cols + right] * x;
                values.push(along(top) * (1.0 - y) + along(bottom) * y);
            }
        }
    }
    values
}

#[test]
fn every_form_agrees_with_its_description_in_pytorch_at_odd_and_unequal_grids() {
    for case in CASES {
        let io = tensors(&format!("segvit/{}_io.safetensors", case.name));
        let names: Vec<String> = (1..=case.is_halved.len()).map(|number| format!("tap_{number}")).collect();
        let taps: Vec<&Tensor> = names.iter().map(|name| &io[name]).collect();
        let has_masks = case.form != SegmentForm::Linear;
        let outputs = if has_masks {
            &[io_names::PROBABILITIES, io_names::CLASS_LOGITS, io_names::MASK_LOGITS] as &[&str]
        } else {
            &[io_names::PROBABILITIES]
        };
        let got = case.run(Precision::Fp32, &taps, outputs);
        for (name, got) in outputs.iter().zip(&got) {
            let what = format!("{} {name}", case.name);
            assert_eq!(got.shape, io[*name].shape, "{what}");
            io[*name].assert_close(&got.values, &what);
        }
        let half = case.run(Precision::Fp16, &taps, &[io_names::PROBABILITIES]).remove(0);
        let difference = |(got, expected): (&f32, &f32)| (got - expected).abs();
        let worst = half.values.iter().zip(&io[io_names::PROBABILITIES].values).map(difference).fold(0f32, f32::max);
        assert!(worst <= FP16_SCORES, "{} in half precision: {worst}", case.name);
    }
}

#[test]
fn scores_can_have_the_grid_of_the_head() {
    let case = Case { upscale: 1, ..case("segvit_s2", SegmentForm::Segvit, &[false, false]) };
    let io = tensors("segvit/segvit_s2_io.safetensors");
    let got = case.run(Precision::Fp32, &[&io["tap_1"], &io["tap_2"]], &[io_names::PROBABILITIES]).remove(0);
    assert_eq!(got.shape, [2, 5, 4, 5]);
    let shares = |image: usize, query: usize, class: usize| {
        let logits = &io["class_logits"].values[(image * 5 + query) * 6..][..6];
        let total: f32 = logits.iter().map(|logit| logit.exp()).sum();
        logits[class].exp() / total
    };
    let covered = |image: usize, query: usize, cell: usize| {
        let logit = io["mask_logits"].values[(image * 5 + query) * 20 + cell];
        1.0 / (1.0 + (-logit).exp())
    };
    let score = |idx: usize| {
        let (image, cell, class) = (idx / 100, idx / 5 % 20, idx % 5);
        (0..5).map(|query| shares(image, query, class) * covered(image, query, cell)).sum()
    };
    let expected = Tensor { shape: got.shape.clone(), values: (0..200).map(score).collect() };
    expected.assert_close(&got.values, "scores by hand");
}
