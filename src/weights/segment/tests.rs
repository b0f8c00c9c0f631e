//! Heads of zeros under the names of their forms.
#![expect(clippy::unwrap_used, reason = "tests")]

use bytes::Bytes;

use super::*;
use crate::weights::{Stored, StoredType};

const CHANNELS: usize = 24;
const WIDTH: usize = 8;
const CLASSES: usize = 5;

#[derive(Default)]
struct Zeros(NamedTensors);

impl Zeros {
    fn insert(&mut self, name: &str, shape: &[usize]) {
        let bytes = Bytes::from(vec![0; 4 * shape.iter().product::<usize>()]);
        self.0.insert(name, Stored { element_type: Some(StoredType::F32), shape: shape.to_vec(), bytes });
    }

    fn linear(&mut self, name: &str, [n_out, n_in]: [usize; 2]) {
        self.insert(&format!("{name}.weight"), &[n_out, n_in]);
        self.insert(&format!("{name}.bias"), &[n_out]);
    }

    fn norm(&mut self, name: &str) {
        self.insert(&format!("{name}.weight"), &[WIDTH]);
        self.insert(&format!("{name}.bias"), &[WIDTH]);
    }

    fn stage(&mut self, prefix: &str, stage: usize, has_projection: bool) {
        if has_projection {
            self.linear(&format!("{prefix}input_proj_{stage}"), [WIDTH, CHANNELS]);
            self.norm(&format!("{prefix}proj_norm_{stage}"));
        }
        for layer in 0..3 {
            let name = format!("{prefix}decoder_{stage}.layers.{layer}");
            self.insert(&format!("{name}.self_attn.in_proj_weight"), &[3 * WIDTH, WIDTH]);
            self.insert(&format!("{name}.self_attn.in_proj_bias"), &[3 * WIDTH]);
            for part in ["self_attn.out_proj", "multihead_attn.q", "multihead_attn.k", "multihead_attn.v", "multihead_attn.proj"]
            {
                self.linear(&format!("{name}.{part}"), [WIDTH, WIDTH]);
            }
            self.linear(&format!("{name}.linear1"), [4 * WIDTH, WIDTH]);
            self.linear(&format!("{name}.linear2"), [WIDTH, 4 * WIDTH]);
            ["norm1", "norm2", "norm3"].iter().for_each(|norm| self.norm(&format!("{name}.{norm}")));
        }
    }

    fn classes(&mut self) {
        self.insert("q.weight", &[CLASSES, WIDTH]);
        self.linear("class_embed", [CLASSES + 1, WIDTH]);
    }
}

fn segvit_file(n_stages: usize) -> NamedTensors {
    let mut file = Zeros::default();
    (1..=n_stages).for_each(|stage| file.stage("", stage, true));
    file.classes();
    file.0
}

fn shrunk_file() -> NamedTensors {
    let mut file = Zeros::default();
    [1, 2].iter().for_each(|stage| file.stage("qu.", *stage, true));
    file.insert("qu.query", &[WIDTH, 4, 6]);
    file.stage("", 1, false);
    file.classes();
    file.0
}

fn linear_file() -> NamedTensors {
    let mut file = Zeros::default();
    ["weight", "bias", "running_mean", "running_var"].iter().for_each(|part| file.insert(&format!("norm.{part}"), &[CHANNELS]));
    file.insert("norm.num_batches_tracked", &[]);
    file.linear("linear", [CLASSES, CHANNELS]);
    file.0
}

fn assembled(file: NamedTensors) -> SegmentWeights {
    assemble_segment(file, CHANNELS, Some(2)).unwrap()
}

#[test]
fn every_form_is_told_by_its_names_and_its_sizes_by_the_shapes() {
    let plain = SegmentShape { width: WIDTH, n_layers: 3, ..SegmentShape::segvit(CHANNELS, CLASSES, 2) };
    for n_taps in [1, 2, 4] {
        assert_eq!(assembled(segvit_file(n_taps)).shape(), SegmentShape { n_taps, ..plain });
    }
    let shrunk = SegmentShape { form: SegmentForm::Shrunk, query_grid: Some([4, 6]), ..plain };
    assert_eq!(assembled(shrunk_file()).shape(), shrunk);
    assert_eq!(assembled(linear_file()).shape(), SegmentShape::linear(CHANNELS, CLASSES));
}

#[test]
fn the_number_of_weights_is_that_of_the_file() {
    for file in [segvit_file(3), shrunk_file(), linear_file()] {
        let is_statistic = |name: &&str| name.contains("running") || name.contains("num_batches");
        let n_values = |name: &str| file.shape(name).unwrap().iter().product::<usize>() as u64;
        let total: u64 = file.names().filter(|name| !is_statistic(name)).map(n_values).sum();
        assert_eq!(assembled(file.clone()).shape().n_parameters(), total);
    }
}

#[test]
fn keys_of_a_checkpoint_may_stand_around_a_head() {
    let checkpoint = |file: NamedTensors| {
        let mut file = file.renamed(|name| Some(format!("state_dict.decode_head.{name}")));
        let other = Stored { element_type: Some(StoredType::F32), shape: vec![1], bytes: Bytes::from(vec![0; 4]) };
        file.insert("state_dict.backbone.cls_token", other.clone());
        file.insert("state_dict.decode_head.loss_decode.weight", other);
        file
    };
    for file in [segvit_file(3), shrunk_file(), linear_file()] {
        assert_eq!(assembled(checkpoint(file.clone())).shape(), assembled(file).shape());
    }
}

#[test]
fn a_packed_projection_is_cut_into_queries_keys_and_values() {
    let mut file = segvit_file(1);
    let values: Vec<u8> = (0u8..24).flat_map(|value| f32::from(value).to_le_bytes()).collect();
    let name = "decoder_1.layers.0.self_attn.in_proj_bias";
    file.insert(name, Stored { element_type: Some(StoredType::F32), shape: vec![24], bytes: Bytes::from(values) });
    let SegmentWeights::Segvit(head) = assembled(file) else { unreachable!("a decoder of one stage") };
    let firsts = head.stages[0].layers[0].self_qkv.each_ref().map(|part| part.bias[0]);
    assert_eq!(firsts, [0.0, 8.0, 16.0]);
}

#[test]
fn what_does_not_fit_is_named() {
    let refused = |file: NamedTensors, heads| assemble_segment(file, CHANNELS, heads).unwrap_err().to_string();
    let without = |file: NamedTensors, missing: &str| file.renamed(|name| (name != missing).then(|| name.to_owned()));
    let with = |mut file: NamedTensors, name: &str, shape: &[usize]| {
        let bytes = Bytes::from(vec![0; 4 * shape.iter().product::<usize>()]);
        file.insert(name, Stored { element_type: Some(StoredType::F32), shape: shape.to_vec(), bytes });
        file
    };
    let cases = [
        (without(segvit_file(2), "decoder_2.layers.1.norm2.bias"), "\"decoder_2.layers.1.norm2.bias\" is missing"),
        (without(segvit_file(1), "decoder_1.layers.0.norm1.weight"), "\"decoder_1.layers.0.norm1.weight\" is missing"),
        (without(shrunk_file(), "decoder_1.layers.0.norm1.weight"), "\"decoder_1.layers.0.norm1.weight\" is missing"),
        (without(shrunk_file(), "qu.query"), "\"input_proj_1.weight\" is missing"),
        (without(linear_file(), "linear.bias"), "\"linear.bias\" is missing"),
        (without(segvit_file(1), "class_embed.weight"), "named like nothing that is known"),
        (with(segvit_file(1), "extra", &[1]), "left over: extra"),
        (with(segvit_file(1), "input_proj_1.weight", &[8, 25]), "has shape [8, 25], [8, 24] was expected"),
        (with(segvit_file(1), "class_embed.weight", &[5, 8]), "has shape [5, 8], [6, 8] was expected"),
        (with(segvit_file(1), "q.weight", &[0, 8]), "\"q.weight\" has shape [0, 8]"),
        (with(segvit_file(1), "q.weight", &[5]), "\"q.weight\" has shape [5]"),
        (with(shrunk_file(), "qu.query", &[8, 0, 4]), "\"qu.query\" has shape [8, 0, 4]"),
        (with(shrunk_file(), "qu.query", &[7, 4, 4]), "\"qu.query\" has shape [7, 4, 4]"),
        (with(linear_file(), "linear.weight", &[0, 24]), "\"linear.weight\" has shape"),
        (with(linear_file(), "linear.weight", &[]), "\"linear.weight\" has shape"),
    ];
    for (file, words) in cases {
        let error = refused(file, Some(2));
        assert!(error.contains(words), "{words:?} is missing in {error:?}");
    }
    for heads in [None, Some(0), Some(3)] {
        assert!(refused(segvit_file(1), heads).contains("give the number of heads"));
    }
}
