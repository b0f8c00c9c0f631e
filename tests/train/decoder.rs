//! The heads for masks: against the authors' decoder, their sizes, grids that are odd or not square, and that they learn.

use densevit::manifest::SegmentForm;
use tch::{Device, Kind, Tensor, nn};
use train::{
    optim::{Adam, Clip},
    segmentation::{
        head::{Head, Shape, n_weights},
        layers::Widths,
        loss::{Ignored, loss},
        output::Output,
    },
};

use crate::support::{error, tensors};

/// Both are single-precision products, summed in different orders.
const FP32: f64 = 1e-4;

fn shape(form: SegmentForm, n_taps: usize, channels: i64, n_classes: i64) -> Shape {
    let widths = Widths { width: channels / 2, heads: (channels / 64).max(1), dropout: 0.1 };
    Shape { form, n_taps, channels, n_classes, widths, grid: [3, 5] }
}

fn head(shape: &Shape) -> (nn::VarStore, Head) {
    tch::manual_seed(0);
    let store = nn::VarStore::new(Device::Cpu);
    let head = Head::new(&store.root(), shape);
    (store, head)
}

fn map(batch: i64, rows: i64, cols: i64, channels: i64) -> Tensor {
    Tensor::randn([batch, rows, cols, channels], (Kind::Float, Device::Cpu))
}

#[test]
fn the_decoder_computes_what_its_authors_decoder_computes() {
    let widths = Widths { width: 32, heads: 4, dropout: 0.1 };
    let (store, head) = head(&Shape { form: SegmentForm::Segvit, n_taps: 3, channels: 64, n_classes: 7, widths, grid: [0, 0] });
    let mut weights = tensors("segvit/atm_k7_c64_d32.safetensors");
    tch::no_grad(|| {
        for (name, mut tensor) in store.variables() {
            tensor.copy_(&weights.remove(&name).unwrap_or_else(|| panic!("the fixture holds no {name}")));
        }
    });
    assert!(weights.is_empty(), "the head has no place for {:?}", weights.keys());
    let io = tensors("segvit/atm_k7_c64_d32_io.safetensors");
    let taps = ["tap_deep", "tap_middle", "tap_shallow"].map(|name| io[name].permute([0, 2, 3, 1]));
    let output = tch::no_grad(|| head.forward(&taps, false));
    let Output::Masks(stages) = &output else { panic!("{output:?}") };
    let last = stages.last().unwrap();
    let masks = last.masks.upsample_bilinear2d([96, 96], false, None, None);
    let got = [("class_logits", last.classes.shallow_clone()), ("mask_logits", masks), ("semantic_map", output.scores([96, 96]))];
    for (name, got) in got {
        let error = error(&got, &io[name]);
        assert!(error <= FP32, "{name}: {error}");
    }
    assert_eq!(stages.len(), 3);
}

#[test]
fn heads_have_as_many_weights_as_published() {
    let count = |shape: Shape| n_weights(&head(&shape).0);
    let of = |form, n_taps, channels, grid| Shape { grid, ..shape(form, n_taps, channels, 150) };
    assert_eq!(count(of(SegmentForm::Segvit, 3, 768, [0, 0])), 22_303_255);
    assert_eq!(count(of(SegmentForm::Segvit, 3, 1024, [0, 0])), 39_568_023);
    assert_eq!(count(of(SegmentForm::Shrunk, 2, 1024, [40, 40])), 39_861_399);
    // Scale and shift of the norm, then a weight a channel and class and a bias a class.
    assert_eq!(count(of(SegmentForm::Linear, 1, 384, [0, 0])), 2 * 384 + 150 * 385);
}

#[test]
fn grids_may_be_odd_of_any_aspect_and_other_than_in_training() {
    for (form, grids, expected) in [
        (SegmentForm::Segvit, vec![[7, 5], [7, 5]], [7, 5]),
        (SegmentForm::Segvit, vec![[4, 3], [7, 5]], [7, 5]),
        (SegmentForm::Shrunk, vec![[7, 5], [4, 3]], [7, 5]),
        (SegmentForm::Linear, vec![[1, 9]], [1, 9]),
    ] {
        let (_store, head) = head(&shape(form, grids.len(), 64, 4));
        let maps: Vec<Tensor> = grids.iter().map(|[rows, cols]| map(2, *rows, *cols, 64)).collect();
        let output = tch::no_grad(|| head.forward(&maps, false));
        assert_eq!(output.grid(), expected, "{form:?}");
        let scores = output.scores(expected.map(|side| 4 * side));
        assert_eq!(scores.size(), [2, 4, 4 * expected[0], 4 * expected[1]]);
        assert!(scores.min().double_value(&[]) >= 0.0);
    }
}

#[test]
fn every_form_overfits_one_batch() {
    for form in [SegmentForm::Segvit, SegmentForm::Shrunk, SegmentForm::Linear] {
        let taps = if form == SegmentForm::Linear { 1 } else { 2 };
        let mut shape = shape(form, taps, 64, 3);
        shape.widths.dropout = 0.0;
        let (store, head) = head(&shape);
        let maps: Vec<Tensor> = (0..taps).map(|_| map(2, 3, 5, 64)).collect();
        // Every cell has a class, one of the last image does not count.
        let labels = Tensor::randint(3, [2, 3, 5], (Kind::Int64, Device::Cpu));
        let _ignored = labels.get(1).get(2).get(4).fill_(255);
        let mut adam = Adam::new(&store);
        let mut step = || {
            let loss = loss(&head.forward(&maps, true), &labels, Ignored::Masked);
            adam.accumulate(&loss);
            adam.clip(Clip::Whole(35.0));
            adam.step(3e-3);
            loss.double_value(&[])
        };
        let first = step();
        let last = (0..150).map(|_| step()).last().unwrap();
        let right = tch::no_grad(|| head.forward(&maps, false)).scores([3, 5]).argmax(1, false).eq_tensor(&labels);
        let right = right.sum(Kind::Float).double_value(&[]);
        assert!(last < 0.25 * first && right >= 28.0, "{form:?}: {first} to {last}, {right} of 29 right");
    }
}
