//! Segmentation heads in models: imported with a backbone or given to one, run together with features, and refused where they do not
//! belong.

use std::{fs, path::Path};

use densevit::{
    import::{HeadKind, HeadOptions, ImportOptions, SegmentCard, SegmentOptions, import, install_head, install_segmenter},
    manifest::{Facet, ModelEntry, Precision, SegmentForm, SegmentInput, Tap, load_dir},
    runtime::{Array, FeatureKey, ModelRunner, RunKey, RunOutput, run_graph},
    tensor::RgbImage,
};
use safetensors::{SafeTensors, serialize_to_file};

use crate::support::{Tensor, features, fixture, library, runner, tensors};

const LINEAR: &str = "segvit/linear.safetensors";
const SHRUNK: &str = "segvit/shrunk.safetensors";
const SEGVIT: &str = "segvit/segvit_s2.safetensors";
const LIFT: &str = "lift/lift_c64_p16.safetensors";

/// What the heads of the fixtures were trained on, in their order of reading.
fn tokens(layers: &[u32]) -> Vec<Tap> {
    layers.iter().map(|layer| Tap { facet: Facet::Token, layer: *layer }).collect()
}

/// A head without a card.
fn segvit() -> SegmentOptions {
    SegmentOptions { taps: Some(tokens(&[1, 0])), heads: Some(2), ..SegmentOptions::new(fixture(SEGVIT)) }
}

fn options(backbone: &str, out: &Path) -> ImportOptions {
    ImportOptions::new(fixture(&format!("backbones/{backbone}.safetensors")), out.to_path_buf(), "tiny")
}

/// A DINO of patch 16, with a LiFT head on keys or without.
fn dino(out: &Path, has_lift: bool) -> ModelEntry {
    let mut options = options("dino_s16", out);
    options.head = has_lift.then(|| HeadOptions::new(fixture(LIFT)));
    import(&options, |_entry| Ok(())).unwrap().entry
}

/// A DINOv2 with registers that halves its grid in `block`.
fn halved(out: &Path, block: u32, segment: Option<SegmentOptions>) -> ModelEntry {
    let mut options = options("dinov2_s14_reg4", out);
    options.query_downsample = Some(block);
    options.segment = segment;
    import(&options, |_entry| Ok(())).unwrap().entry
}

/// The image that the activations of the tiny models were computed for.
fn golden_image(name: &str) -> RgbImage {
    let bytes = fs::read(fixture(&format!("backbones/{name}.golden.safetensors"))).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let view = file.tensor("other.image").unwrap();
    let side = |axis: usize| u32::try_from(view.shape()[axis]).unwrap();
    RgbImage::new(side(0), side(1), view.data().to_vec()).unwrap()
}

fn run(runner: &mut ModelRunner, key: &RunKey, image: &RgbImage) -> RunOutput {
    runner.run(key, std::slice::from_ref(image)).unwrap().remove(0)
}

fn all_of(image: &RgbImage, tap: Tap) -> RunKey {
    let features = FeatureKey { tap, lift_passes: 0, cls: true, registers: true };
    RunKey { height: image.height(), width: image.width(), features: Some(features), segment: false }
}

#[test]
fn a_backbone_that_halves_its_grid_computes_what_pytorch_computes() {
    let golden = tensors("segvit/query_downsample.safetensors");
    let image = golden_image("dinov2_s14_reg4");
    for block in [0, 1] {
        let folder = tempfile::tempdir().unwrap();
        let entry = halved(folder.path(), block, None);
        let mut runner = runner(&entry);
        for (facet, layer) in Facet::ALL.into_iter().flat_map(|facet| [(facet, 0), (facet, 1)]) {
            let tap = Tap { facet, layer };
            let got = features(run(&mut runner, &all_of(&image, tap), &image));
            let expected = &golden[&format!("block_{block}.{facet}.{layer}")];
            let what = format!("{tap}, halved in block {block}");
            assert_eq!(expected.shape, [got.map.rows(), got.map.cols(), got.map.channels()], "{what}");
            expected.assert_close(got.map.data(), &what);
            if facet == Facet::Token {
                golden[&format!("block_{block}.cls.token.{layer}")].assert_close(&got.cls.unwrap(), &what);
                golden[&format!("block_{block}.registers.token.{layer}")].assert_close(&got.registers.unwrap(), &what);
            }
        }
    }
}

#[test]
fn several_activations_come_from_one_run_with_their_own_grids() {
    let golden = tensors("segvit/query_downsample.safetensors");
    let folder = tempfile::tempdir().unwrap();
    let mut runner = runner(&halved(folder.path(), 1, None));
    let image = golden_image("dinov2_s14_reg4");
    let taps = [tokens(&[1])[0], Tap { facet: Facet::Key, layer: 1 }, tokens(&[0])[0]];
    let maps = runner.run_taps(&taps, &[image.clone(), image]).unwrap();
    for (tap, maps) in taps.iter().zip(&maps) {
        let expected = &golden[&format!("block_1.{}.{}", tap.facet, tap.layer)];
        maps.iter().for_each(|map| expected.assert_close(map.data(), &tap.to_string()));
        assert_eq!((maps.len(), maps[1].rows()), (2, expected.shape[0]));
    }
}

#[test]
fn a_shrunk_head_and_its_backbone_score_an_image_as_pytorch_does() {
    let folder = tempfile::tempdir().unwrap();
    let entry = halved(folder.path(), 1, Some(SegmentOptions::new(fixture(SHRUNK))));
    let segmenter = entry.manifest.segmenter.as_ref().unwrap();
    assert_eq!(
        (segmenter.form, segmenter.input, segmenter.taps.clone()),
        (SegmentForm::Shrunk, SegmentInput::Backbone, tokens(&[0, 1]))
    );
    assert_eq!((segmenter.upscale, segmenter.size, segmenter.parameters), (4, Some([42, 70]), 42_310));
    let (names, license): (Vec<_>, _) = (segmenter.classes.iter().map(|class| class.name.as_str()).collect(), &segmenter.license);
    assert_eq!((names, license.as_str()), (vec!["sky", "road", "car", "tree", "sign"], "Apache-2.0"));
    entry.verify().unwrap();
    let image = golden_image("dinov2_s14_reg4");
    let key = RunKey::segment([image.height(), image.width()]);
    let scores = runner(&entry).run(&key, &[image.clone(), image]).unwrap().remove(1).scores.unwrap();
    assert_eq!([scores.rows(), scores.cols(), scores.channels()], entry.manifest.scores_shape([42, 70]).unwrap());
    tensors("segvit/query_downsample.safetensors")["scores"].assert_close(scores.data(), "scores");
}

#[test]
fn half_precision_gives_the_same_classes_with_nearly_the_same_scores() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = options("dinov2_s14_reg4", folder.path());
    options.query_downsample = Some(1);
    options.segment = Some(SegmentOptions::new(fixture(SHRUNK)));
    options.precision = Precision::Fp16;
    let entry = import(&options, |_entry| Ok(())).unwrap().entry;
    let image = golden_image("dinov2_s14_reg4");
    let scores = runner(&entry).run(&RunKey::segment([42, 70]), &[image]).unwrap().remove(0).scores.unwrap();
    let golden = &tensors("segvit/query_downsample.safetensors")["scores"];
    let worst = scores.data().iter().zip(&golden.values).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
    assert!(worst <= 0.02, "{worst}");
}

/// Scores of the graph beside a manifest for maps `[1, h, w, C]`.
fn scores_of(entry: &ModelEntry, maps: &[&densevit::tensor::FeatureMap]) -> Tensor {
    let path = entry.dir.join("segment.onnx");
    let array = |map: &densevit::tensor::FeatureMap| Array {
        shape: vec![1, map.rows(), map.cols(), map.channels()],
        values: map.data().to_vec(),
    };
    let names = ["map_1", "map_2"];
    let inputs: Vec<_> = names.into_iter().zip(maps.iter().map(|map| array(map))).collect();
    let got = run_graph(&library(), &path, &inputs, &["probabilities"]).unwrap().remove(0);
    Tensor { shape: got.shape, values: got.values }
}

#[test]
fn one_run_of_the_backbone_feeds_two_taps_and_the_features() {
    let folder = tempfile::tempdir().unwrap();
    let model = dino(folder.path(), false);
    let entry = install_segmenter(&model.dir, &segvit(), |_entry| Ok(())).unwrap();
    let mut runner = runner(&entry);
    let image = golden_image("dino_s16");
    let mut map = |layer| features(run(&mut runner, &all_of(&image, tokens(&[layer])[0]), &image)).map;
    let (deep, shallow) = (map(1), map(0));
    let expected = scores_of(&entry, &[&deep, &shallow]);
    for tap in [tokens(&[0])[0], tokens(&[1])[0], Tap { facet: Facet::Key, layer: 0 }] {
        let alone = features(run(&mut runner, &all_of(&image, tap), &image)).map;
        let both = run(&mut runner, &RunKey { segment: true, ..all_of(&image, tap) }, &image);
        let alone = Tensor { shape: vec![alone.rows(), alone.cols(), alone.channels()], values: alone.data().to_vec() };
        expected.assert_close(both.scores.as_ref().unwrap().data(), "scores beside features");
        alone.assert_close(features(both).map.data(), "features beside scores");
    }
}

#[test]
fn a_head_reads_features_after_lift_and_stays_when_that_one_is_given_again() {
    let folder = tempfile::tempdir().unwrap();
    let model = dino(folder.path(), true);
    assert_eq!(HeadKind::of(&fixture(LINEAR)).unwrap(), HeadKind::Segment);
    assert_eq!(HeadKind::of(&fixture(LIFT)).unwrap(), HeadKind::Lift);
    let entry = install_segmenter(&model.dir, &SegmentOptions::new(fixture(LINEAR)), |_entry| Ok(())).unwrap();
    let segmenter = entry.manifest.segmenter.as_ref().unwrap();
    assert_eq!((segmenter.input, segmenter.scores.miou), (SegmentInput::Lift, Some(0.5)));
    assert_eq!(entry.manifest.lift, model.manifest.lift, "the LiFT head stays");

    let image = golden_image("dino_s16");
    let (size, tap) = ([image.height(), image.width()], segmenter.taps[0]);
    let mut runner = runner(&entry);
    let once = features(run(&mut runner, &RunKey::features(size, tap, 1), &image)).map;
    let expected = scores_of(&entry, &[&once]);
    for passes in [0, 1, 2] {
        let key = RunKey { segment: true, ..RunKey::features(size, tap, passes) };
        let output = run(&mut runner, &key, &image);
        let scores = output.scores.as_ref().unwrap();
        assert_eq!([scores.rows(), scores.cols(), scores.channels()], entry.manifest.scores_shape(size).unwrap());
        expected.assert_close(scores.data(), &format!("beside {passes} passes"));
        assert_eq!(features(output).map.rows(), 3 << passes);
    }

    let again = install_head(&entry.dir, &HeadOptions::new(fixture(LIFT)), |_entry| Ok(())).unwrap();
    assert_eq!(again.manifest, entry.manifest);
    let other = HeadOptions::new(fixture("lift/residual_c64_p14.safetensors"));
    let error = install_head(&entry.dir, &other, |_entry| Ok(())).unwrap_err();
    assert!(error.to_string().contains("reads features after its LiFT head"), "{error}");
    assert_eq!(load_dir(&entry.dir).unwrap().manifest, entry.manifest, "the model stays as it was");
}

#[test]
fn another_segmentation_head_takes_the_place_of_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let model = dino(folder.path(), true);
    install_segmenter(&model.dir, &SegmentOptions::new(fixture(LINEAR)), |_entry| Ok(())).unwrap();
    let entry = install_segmenter(&model.dir, &segvit(), |_entry| Ok(())).unwrap();
    let segmenter = entry.manifest.segmenter.as_ref().unwrap();
    assert_eq!(
        (segmenter.form, segmenter.taps.clone(), segmenter.license.as_str()),
        (SegmentForm::Segvit, tokens(&[1, 0]), "unknown")
    );
    assert_eq!(segmenter.classes[4].name, "class_4");
    entry.verify().unwrap();
    // Now nothing reads the LiFT head, so that it may change.
    let lift =
        install_head(&entry.dir, &HeadOptions::new(fixture("lift/residual_c64_p14.safetensors")), |_entry| Ok(())).unwrap();
    assert_eq!(lift.manifest.segmenter, entry.manifest.segmenter);
}

/// The head of a fixture with another card.
fn with_card(head: &str, path: &Path, change: impl FnOnce(&mut SegmentCard)) -> SegmentOptions {
    let mut card = SegmentCard::read(&fixture(head)).unwrap().unwrap();
    change(&mut card);
    let bytes = fs::read(fixture(head)).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let (key, text) = card.metadata();
    serialize_to_file(file.iter(), Some([(key.to_owned(), text)].into()), path).unwrap();
    SegmentOptions::new(path.to_path_buf())
}

#[test]
fn a_card_that_does_not_fit_is_refused_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let model = dino(folder.path(), true);
    let path = folder.path().join("head.safetensors");
    let refused = |options: &SegmentOptions| {
        let error = install_segmenter(&model.dir, options, |_entry| Ok(())).unwrap_err();
        format!("{error}: {:?}", std::error::Error::source(&error).map(ToString::to_string))
    };
    type Change = fn(&mut SegmentCard);
    let cases: [(&str, Change); 9] = [
        ("trained on the backbone of the weights with SHA-256 00", |card| card.backbone_source_sha256 = "00".into()),
        ("speaks of a segvit head, its tensors are those of a linear one", |card| card.form = SegmentForm::Segvit),
        ("speaks of 2 taps, its tensors 1", |card| card.taps.push(card.taps[0])),
        ("speaks of 4 classes, its tensors 5", |card| drop(card.classes.pop())),
        ("no LiFT head for its tap", |card| card.taps[0].facet = Facet::Token),
        ("upscale 3 is no power of two", |card| card.upscale = 3),
        ("has no area", |card| card.size = [0, 9]),
        ("two classes have one name", |card| card.classes[1].name = "sky".into()),
        ("outside 0 to 1", |card| card.scores.miou = Some(60.0)),
    ];
    for (words, change) in cases {
        let text = refused(&with_card(LINEAR, &path, change));
        assert!(text.contains(words), "{words:?} is missing in {text}");
    }
    let elsewhere = with_card(LINEAR, &path, |card| card.backbone_source_sha256 = "00".into());
    let entry = install_segmenter(&model.dir, &SegmentOptions { any_backbone: true, ..elsewhere }, |_entry| Ok(())).unwrap();
    assert!(entry.manifest.segmenter.is_some(), "taken all the same when asked to");
    let plain = SegmentOptions { any_backbone: true, ..SegmentOptions::new(fixture(SHRUNK)) };
    assert!(refused(&plain).contains("query_downsample"), "{}", refused(&plain));
}

#[test]
fn options_that_do_not_fit_a_head_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let model = dino(folder.path(), true);
    let refused = |options: SegmentOptions| install_segmenter(&model.dir, &options, |_entry| Ok(())).unwrap_err();
    let linear = || SegmentOptions::new(fixture(LINEAR));
    let text = |error: densevit::import::ImportError| {
        format!("{error}: {:?}", std::error::Error::source(&error).map(ToString::to_string))
    };
    let cases = [
        (SegmentOptions { taps: Some(tokens(&[0])), ..linear() }, "--segment-taps: the head was trained on the key of block 1"),
        (SegmentOptions { taps: None, ..segvit() }, "--segment-taps: needed for a segvit head of 2 taps on 2 blocks"),
        (SegmentOptions { taps: Some(tokens(&[1])), ..segvit() }, "--segment-taps: 1 taps, the head reads 2"),
        (
            SegmentOptions { taps: Some(tokens(&[1, 7])), ..segvit() },
            "--segment-taps: the head takes the token of block 7, which",
        ),
        (SegmentOptions { heads: None, ..segvit() }, "give the number of heads"),
        (
            SegmentOptions { heads: Some(3), ..SegmentOptions::new(fixture(SHRUNK)) },
            "--segment-heads: the head was trained with 2",
        ),
        (SegmentOptions::new(fixture(LIFT)), "named like nothing that is known here; expected segmentation heads"),
    ];
    for (options, words) in cases {
        let text = text(refused(options));
        assert!(text.contains(words), "{words:?} is missing in {text}");
    }
    assert!(text(HeadKind::of(&fixture("backbones/dino_s16.safetensors")).unwrap_err()).contains("expected a LiFT head"));
    let mut deep = options("dino_s16", folder.path());
    (deep.query_downsample, deep.force) = (Some(2), true);
    assert!(text(import(&deep, |_entry| Ok(())).unwrap_err()).contains("--query-downsample: block 2 of 2"));
}

#[test]
fn published_heads_need_no_options_on_the_depths_that_they_were_made_for() {
    // A head of one tap reads the last block.
    let folder = tempfile::tempdir().unwrap();
    let model = dino(folder.path(), false);
    let source = SegmentOptions { heads: Some(2), ..SegmentOptions::new(fixture("segvit/segvit_s1.safetensors")) };
    let entry = install_segmenter(&model.dir, &source, |_entry| Ok(())).unwrap();
    let segmenter = entry.manifest.segmenter.unwrap();
    assert_eq!((segmenter.taps, segmenter.upscale, segmenter.size), (tokens(&[1]), 4, None));
    assert_eq!(segmenter.classes[0].color, [128, 0, 0]);
}

#[test]
fn a_lift_head_is_refused_where_the_grid_is_halved() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = options("dinov2_s14", folder.path());
    options.query_downsample = Some(0);
    options.head = Some(HeadOptions::new(fixture(LIFT)));
    let error = import(&options, |_entry| Ok(())).unwrap_err();
    let text = format!("{error}: {:?}", std::error::Error::source(&error).map(ToString::to_string));
    assert!(text.contains("whose grid the backbone halves"), "{text}");
}
