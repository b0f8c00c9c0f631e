//! The LiFT head against its authors' module: patch 16 and 8, one pass and two.

use densevit::{
    graph::{LiftOptions, build_lift},
    manifest::{Precision, io_names},
    onnx::save,
    runtime::{Array, run_graph},
    weights::{self, ChannelOrder, assemble_lift},
};

use crate::support::{Tensor, fixture, library, tensors};

/// Writes a head of the fixtures as a graph.
fn graph(name: &str, patch: u32, precision: Precision) -> (tempfile::TempDir, std::path::PathBuf) {
    let file = weights::read(&fixture(&format!("lift/{name}_c64_p{patch}.safetensors"))).unwrap();
    let head = assemble_lift(file, patch, 64, ChannelOrder::Natural).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lift.onnx");
    save(build_lift(&head, LiftOptions { patch, precision }).unwrap(), &path, u64::MAX).unwrap();
    (folder, path)
}

fn array(tensor: &Tensor) -> Array {
    Array { shape: tensor.shape.clone(), values: tensor.values.clone() }
}

#[test]
fn one_pass_agrees_with_the_authors_module_for_both_patch_sizes() {
    for patch in [16, 8] {
        let io = tensors(&format!("lift/lift_c64_p{patch}_io.safetensors"));
        let (_folder, path) = graph("lift", patch, Precision::Fp32);
        let inputs = [(io_names::PIXELS, array(&io["image"])), (io_names::FEATURES, array(&io["features"].channels_last()))];
        let outputs = run_graph(&library(), &path, &inputs, &[io_names::UPSAMPLED]).unwrap();
        let expected = io["lift_1"].channels_last();
        assert_eq!(outputs[0].shape, expected.shape);
        expected.assert_close(&outputs[0].values, &format!("patch {patch}"));
    }
}

#[test]
fn a_second_pass_sees_the_doubled_image() {
    let io = tensors("lift/lift_c64_p16_io.safetensors");
    let (_folder, path) = graph("lift", 16, Precision::Fp32);
    let inputs = [(io_names::PIXELS, array(&io["image"])), (io_names::FEATURES, array(&io["features"].channels_last()))];
    let mut first = run_graph(&library(), &path, &inputs, &[io_names::UPSAMPLED, io_names::PIXELS_2X]).unwrap().into_iter();
    let (features, pixels) = (first.next().unwrap(), first.next().unwrap());
    let inputs = [(io_names::PIXELS, pixels), (io_names::FEATURES, features)];
    let second = run_graph(&library(), &path, &inputs, &[io_names::UPSAMPLED]).unwrap();
    io["lift_2"].channels_last().assert_close(&second[0].values, "second pass");
}

/// The output of one pass and of a second one behind it.
fn two_passes(name: &str, precision: Precision) -> [Vec<f32>; 2] {
    let io = tensors(&format!("lift/{name}_c64_p14_io.safetensors"));
    let (_folder, path) = graph(name, 14, precision);
    let inputs = [(io_names::PIXELS, array(&io["image"])), (io_names::FEATURES, array(&io["features"].channels_last()))];
    let first = run_graph(&library(), &path, &inputs, &[io_names::UPSAMPLED, io_names::PIXELS_2X]).unwrap();
    let [features, pixels] = first.try_into().unwrap();
    let inputs = [(io_names::PIXELS, pixels), (io_names::FEATURES, features.clone())];
    let mut second = run_graph(&library(), &path, &inputs, &[io_names::UPSAMPLED]).unwrap();
    [features.values, second.remove(0).values]
}

#[test]
fn our_own_forms_agree_with_their_definition_in_pytorch() {
    for name in ["residual", "guided", "corrected"] {
        let io = tensors(&format!("lift/{name}_c64_p14_io.safetensors"));
        for (pass, got) in ["lift_1", "lift_2"].into_iter().zip(two_passes(name, Precision::Fp32)) {
            io[pass].channels_last().assert_close(&got, &format!("{name} {pass}"));
        }
        let cosine = io["lift_1"].channels_last().smallest_cosine(&two_passes(name, Precision::Fp16)[0]);
        assert!(cosine >= 0.999, "{name} in half precision: {cosine}");
    }
}

#[test]
fn half_precision_keeps_the_direction_of_every_descriptor() {
    let io = tensors("lift/lift_c64_p16_io.safetensors");
    let (_folder, path) = graph("lift", 16, Precision::Fp16);
    let inputs = [(io_names::PIXELS, array(&io["image"])), (io_names::FEATURES, array(&io["features"].channels_last()))];
    let outputs = run_graph(&library(), &path, &inputs, &[io_names::UPSAMPLED]).unwrap();
    let cosine = io["lift_1"].channels_last().smallest_cosine(&outputs[0].values);
    assert!(cosine >= 0.999, "{cosine}");
}
