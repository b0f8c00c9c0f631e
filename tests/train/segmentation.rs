//! `train segvit` and `train eval segmentation`: they learn, they resume, they leave files that fit together.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
    sync::{Arc, atomic::AtomicBool},
};

use densevit::{
    import::{HeadOptions, SegmentCard, install_head},
    manifest::{Facet, SegmentForm, SegmentInput, SegmentScores, Tap, load_dir},
    weights::ChannelOrder,
};
use serde_json::Value;
use tch::{Device, Tensor, nn};
use tempfile::TempDir;
use train::{
    checkpoint,
    segmentation::{
        card::TrainingCard,
        config::SegvitConfig,
        confusion::Scores,
        data::{layout::Layout, recipe::Recipe, view::Augmentation},
        features::{Model, Network, Reading, WeightFiles},
        learner::{self, Job},
        source::{Source, Supply},
    },
};

use crate::support::{fixture, lifted_model, street, tensors, tiny_model};

/// Sums over the pixels of a few images, once in half precision.
const SCORES: f64 = 0.02;

fn train(arguments: &str, paths: &[(&'static str, &Path)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_train"));
    command.current_dir(format!("{}/../..", env!("CARGO_MANIFEST_DIR"))).args(arguments.split_whitespace());
    command.args(paths.iter().flat_map(|(flag, path)| [flag.as_ref(), path.as_os_str()])).output().unwrap()
}

fn succeeded(output: &Output) -> String {
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}{stderr}");
    stdout.into_owned()
}

fn card(run: &Path) -> (SegmentCard, TrainingCard) {
    let file = run.join(learner::HEAD);
    (SegmentCard::read(&file).unwrap().unwrap(), TrainingCard::read(&checkpoint::read(&file).unwrap().1).unwrap())
}

/// Loss of every step of a run.
fn losses(run: &Path) -> Vec<f64> {
    let log = fs::read_to_string(run.join("log.jsonl")).unwrap();
    log.lines().filter_map(|line| serde_json::from_str::<Value>(line).unwrap()["loss"].as_f64()).collect()
}

/// Trains with these flags, measures on the validation split, and compares both scores. Returns the numbers of the measurement.
fn circle(folder: &Path, flags: &str, has_weights: bool) -> Value {
    let at = |name: &str| folder.join(name);
    let is_lifted = flags.contains("--input lift");
    let entry = if is_lifted { lifted_model(&at("models")) } else { tiny_model(&at("models")) };
    let (data, weights) = (street(8), fixture("backbones/dino_s16.safetensors"));
    // As a trainer writes it: without the counters of BatchNorm.
    let lift = at("lift.safetensors");
    checkpoint::write(&lift, &tensors("lift/lift_c64_p16.safetensors"), &[]).unwrap();
    let usual = "--size=64,96 --base=96,64 --batch=4 --steps=30 --warmup=2 --validate-every=15 --views=2 --label-stride=2 \
        --learning-rate=3e-4 --dropout=0 --license=test";
    let is_free = |setting: &&str| !flags.contains(setting.split_once('=').unwrap().0);
    let settings = usual.split_whitespace().filter(is_free).collect::<Vec<_>>().join(" ");
    let (out, cache, json) = (at("run"), at("cache"), at("numbers.json"));
    let mut paths = vec![("--model", entry.dir.as_path()), ("--data", data.path()), ("--out", &out), ("--cache", &cache)];
    if has_weights {
        paths.push(("--weights", &weights));
        paths.extend(is_lifted.then_some(("--lift", lift.as_path())));
    }
    let said = succeeded(&train(&format!("segvit {settings} {flags}"), &paths));
    assert!(said.contains("8 images to learn from, 4 to measure on, 3 classes"), "{said}");

    let (head, learned, pictures, confusion) =
        (out.join(learner::HEAD), out.join("backbone/model.safetensors"), at("pictures"), at("confusion.png"));
    let mut paths = vec![("--model", entry.dir.as_path()), ("--data", data.path()), ("--head", &head), ("--json", &json)];
    if has_weights {
        paths.push(("--weights", if learned.exists() { &learned } else { &weights }));
        paths.extend(is_lifted.then_some(("--lift", lift.as_path())));
    }
    paths.extend([("--pictures", pictures.as_path()), ("--confusion", confusion.as_path())]);
    succeeded(&train("eval segmentation --n-pictures 2", &paths));
    let numbers: Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    assert_eq!(fs::read_dir(&pictures).unwrap().count(), 2);
    assert!(image::open(&confusion).unwrap().width() > 200);
    let (card, _) = card(&out);
    let (miou, accuracy) = (numbers["miou"].as_f64().unwrap(), numbers["pixel_accuracy"].as_f64().unwrap());
    let apart =
        [(card.scores.miou, miou), (card.scores.pixel_accuracy, accuracy)].map(|(of_run, again)| (of_run.unwrap() - again).abs());
    assert!(apart.iter().all(|apart| *apart < SCORES), "{:?} {numbers}", card.scores);
    assert_eq!((card.license.as_str(), card.size, card.upscale), ("test", [64, 96], 4));
    numbers
}

#[test]
fn a_decoder_learns_streets_on_a_frozen_backbone() {
    let folder = tempfile::tempdir().unwrap();
    let numbers = circle(folder.path(), "--form segvit --taps 1,0 --width 32 --heads 2", false);
    assert!(numbers["miou"].as_f64().unwrap() > 0.5, "{numbers}");
    assert_eq!((numbers["images"].as_u64(), numbers["classes"][2]["name"].as_str()), (Some(4), Some("car")));
    // Windows of the training size are the whole image.
    let at = |name: &str| folder.path().join(name);
    let (head, data, json) = (at("run").join(learner::HEAD), street(8), at("slide.json"));
    let model = at("models/tiny/1");
    let paths = [("--model", model.as_path()), ("--data", data.path()), ("--head", &head), ("--json", &json)];
    succeeded(&train("eval segmentation --mode slide --split test", &paths));
    succeeded(&train("eval segmentation --mode slide --size 48,64 --stride 16,32 --split test", &paths));
    let slid: Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    assert_eq!(slid["images"].as_u64(), Some(2));
    let curve = image::open(at("run").join("loss.png")).unwrap();
    assert!(curve.width() > 800);
}

#[test]
fn a_linear_head_learns_streets_on_a_frozen_backbone() {
    let folder = tempfile::tempdir().unwrap();
    let numbers = circle(folder.path(), "--form linear --learning-rate 3e-3 --no-cache", false);
    assert!(numbers["miou"].as_f64().unwrap() > 0.5, "{numbers}");
    let (card, _) = card(&folder.path().join("run"));
    assert_eq!((card.form, card.heads, card.taps.len()), (SegmentForm::Linear, None, 1));
}

#[test]
fn heads_read_doubled_features_of_the_served_model_and_of_a_backbone_that_learns() {
    for (flags, has_weights) in [("--form segvit", false), ("--form linear", false), ("--form linear --finetune", true)] {
        let folder = tempfile::tempdir().unwrap();
        let flags = format!("{flags} --input lift --width 32 --heads 2 --steps 6");
        let numbers = circle(folder.path(), &flags, has_weights);
        // 4 x 6 patches, doubled: what is learned reads 96 cells.
        let (card, _) = card(&folder.path().join("run"));
        assert_eq!((card.input, card.taps[0].layer), (SegmentInput::Lift, 1));
        let is_linear = card.form == SegmentForm::Linear;
        assert!(!is_linear || numbers["cost"]["head_macs"].as_u64() == Some(8 * 12 * 64 * 3), "{numbers}");
        if !has_weights {
            another_lift_head_takes_its_reader_out(&folder.path().join("models/tiny/1"));
        }
    }
}

/// The head for masks belongs to the LiFT head that it was trained behind.
fn another_lift_head_takes_its_reader_out(dir: &Path) {
    let other = HeadOptions {
        tap: Some(Tap { facet: Facet::Token, layer: 1 }),
        order: Some(ChannelOrder::HeadFastest { heads: 2 }),
        ..HeadOptions::new(fixture("lift/lift_c64_p16.safetensors"))
    };
    assert!(load_dir(dir).unwrap().manifest.segmenter.is_some());
    let refused = install_head(dir, &other, |_entry| Ok(())).unwrap_err().to_string();
    assert!(refused.contains("--drop-segment"), "{refused}");
    let entry = install_head(dir, &HeadOptions { drop_reader: true, ..other }, |_entry| Ok(())).unwrap();
    assert!(entry.manifest.segmenter.is_none() && entry.manifest.lift.is_some() && !dir.join("segment.onnx").exists());
}

#[test]
fn a_shrunk_decoder_learns_streets_on_a_backbone_that_halves_its_grid() {
    let folder = tempfile::tempdir().unwrap();
    circle(folder.path(), "--form shrunk --taps 0,1 --downsample 1 --width 32 --heads 2 --steps 20", true);
    let run = folder.path().join("run");
    assert_eq!(card(&run).1.downsample, Some(1));
    let losses = losses(&run);
    assert!(losses.len() == 20 && losses[19] < 0.7 * losses[0], "{losses:?}");
}

#[test]
fn a_backbone_learns_with_its_head_and_both_are_written() {
    let folder = tempfile::tempdir().unwrap();
    let flags = "--form segvit --taps 1 --width 32 --heads 2 --finetune --layer-decay 0.8 --drop-path 0.1 --steps 8";
    circle(folder.path(), flags, true);
    let run = folder.path().join("run");
    let first = losses(&run);
    assert!(first[7] < 0.9 * first[0], "{first:?}");
    let learned = densevit::manifest::sha256_file(&run.join("backbone/model.safetensors")).unwrap();
    assert_eq!(card(&run).0.backbone_source_sha256, learned);
    // The head belongs to the backbone that it learned with.
    let (head, model, data) = (run.join(learner::HEAD), folder.path().join("models/tiny/1"), street(1));
    let paths = [("--model", model.as_path()), ("--data", data.path()), ("--head", &head)];
    let refused = train("eval segmentation", &paths);
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("was trained on the backbone"));
    // Another run may begin with it, if its settings describe it.
    let (data, again, weights) = (street(8), folder.path().join("again"), fixture("backbones/dino_s16.safetensors"));
    let paths =
        [("--model", model.as_path()), ("--data", data.path()), ("--out", &again), ("--from", &head), ("--weights", &weights)];
    let usual =
        "segvit --size 64,96 --base 96,64 --batch 4 --steps 1 --taps 1 --heads 2 --finetune --warmup 1 --learning-rate 1e-9";
    succeeded(&train(&format!("{usual} --width 32"), &paths));
    let [of_first, of_second] = [&run, &again].map(|run| checkpoint::read(&run.join(learner::HEAD)).unwrap().0);
    // One step of a tiny rate.
    let is_close = |name: &String| (&of_first[name] - &of_second[name]).abs().max().double_value(&[]) < 1e-4;
    assert!(of_second.keys().all(is_close));
    let refused = train(&format!("{usual} --width 16"), &paths);
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("holds another head"));
}

#[test]
fn data_that_do_not_fit_stop_a_run_with_their_names() {
    let folder = tempfile::tempdir().unwrap();
    let (entry, data, out) = (tiny_model(&folder.path().join("models")), street(3), folder.path().join("run"));
    image::GrayImage::from_pixel(96, 64, image::Luma([5])).save(data.path().join("masks/train/1.png")).unwrap();
    let cache = folder.path().join("cache");
    let paths = [("--model", entry.dir.as_path()), ("--data", data.path()), ("--out", &out), ("--cache", &cache)];
    let run = |flags: &str| {
        let size = if flags.contains("--size") { "" } else { "--size 64,96" };
        let output = train(&format!("segvit --steps 2 --batch 3 --taps 1 --width 32 {size} {flags}"), &paths);
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    for flags in ["", "--no-cache"] {
        let said = run(flags);
        assert!(said.contains("masks/train/1.png holds label 5"), "{said}");
    }
    image::GrayImage::from_pixel(96, 64, image::Luma([1])).save(data.path().join("masks/train/1.png")).unwrap();
    assert!(run("--finetune").contains("(--weights)"), "{}", run("--finetune"));
    assert!(run("--size 60,96").contains("multiples of the patch, 16"));
    assert!(run("--cache-bytes 100").contains("--cache-bytes"), "{}", run("--cache-bytes 100"));
    assert!(run("--input lift").contains("no LiFT head"), "{}", run("--input lift"));
}

/// A run that takes a moment, on a backbone that learns.
struct Bench {
    folder: TempDir,
    data: TempDir,
    model: Model,
    config: SegvitConfig,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let entry = tiny_model(&folder.path().join("models"));
        let config = SegvitConfig {
            taps: vec![1, 0],
            width: Some(32),
            heads: Some(2),
            finetune: true,
            drop_path: 0.2,
            batch: 2,
            accumulate: 2,
            steps: 4,
            warmup: 1,
            validate_every: 2,
            ema: 0.9,
            augmentation: Augmentation { size: [48, 64], base: [96, 64], ..Augmentation::default() },
            ..SegvitConfig::default()
        };
        Self { folder, data: street(5), model: Model::open(&entry.dir).unwrap(), config }
    }

    fn run(&self, out: &Path, stop: &AtomicBool, resume: bool) -> anyhow::Result<Scores> {
        let layout: Layout = "generic".parse().unwrap();
        let read = |split: &str| Arc::new(layout.read(self.data.path(), split).unwrap());
        let (config, arch) = (&self.config, &self.model.manifest().architecture);
        let taps = config.taps(arch.depth, self.model.manifest().backbone.default);
        let recipe = Recipe { augmentation: config.augmentation, pixels: self.model.pixels(), patch: 16, seed: config.seed };
        let card = SegmentCard {
            form: config.form,
            input: SegmentInput::Backbone,
            taps: taps.clone(),
            heads: Some(2),
            classes: read("train").classes.list().to_vec(),
            size: config.augmentation.size,
            upscale: config.upscale,
            backbone_source_sha256: String::new(),
            license: "test".into(),
            scores: SegmentScores::default(),
        };
        let job = Job {
            config,
            shape: config.shape(arch, taps.len(), 3),
            validation: read("val"),
            cached: None,
            recipe,
            from: None,
            card,
            training: TrainingCard::default(),
            out,
            device: Device::Cpu,
            stop,
        };
        let source = Source { dataset: read("train"), recipe, supply: Supply::Images };
        learner::train(&job, source, Some(|root: &nn::Path<'_>| self.network(root, &taps)), resume)
    }

    fn network(&self, root: &nn::Path<'_>, taps: &[densevit::manifest::Tap]) -> anyhow::Result<Network> {
        let files = WeightFiles { backbone: Some(fixture("backbones/dino_s16.safetensors")), lift: None };
        let reading =
            Reading { taps: taps.to_vec(), input: SegmentInput::Backbone, downsample: None, drop_path: self.config.drop_path };
        self.model.trained(root, reading, &files, &self.model.manifest().provenance.source_sha256)
    }
}

#[test]
fn a_run_that_was_interrupted_ends_where_a_straight_one_ends() {
    let bench = Bench::new();
    let (straight, broken) = (bench.folder.path().join("straight"), bench.folder.path().join("broken"));
    let (go, stop) = (AtomicBool::new(false), AtomicBool::new(true));
    let scores = bench.run(&straight, &go, false).unwrap();
    let stopped = bench.run(&broken, &stop, false).unwrap_err();
    assert!(stopped.to_string().contains("stopped at step 1"), "{stopped}");
    assert_eq!(bench.run(&broken, &go, true).unwrap(), scores);
    for file in [learner::HEAD, "backbone/model.safetensors", "checkpoint.safetensors"] {
        let [straight, broken] = [&straight, &broken].map(|run| checkpoint::read(&run.join(file)).unwrap().0);
        assert_eq!(straight.keys().collect::<Vec<_>>(), broken.keys().collect::<Vec<_>>());
        let differing: Vec<&String> = straight.keys().filter(|name| !Tensor::equal(&straight[*name], &broken[*name])).collect();
        assert!(differing.is_empty(), "{file}: {differing:?}");
    }
    let mut other = Bench::new();
    other.config.learning_rate *= 2.0;
    let refused = other.run(&broken, &go, true).unwrap_err().to_string();
    assert!(refused.contains("other settings"), "{refused}");
}
