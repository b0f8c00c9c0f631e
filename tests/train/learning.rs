//! The loop: it learns, it resumes, it refuses.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

use densevit::{
    import::LiftCard,
    manifest::{Facet, LiftForm, Tap},
};
use tch::{Device, Kind, Tensor, nn};
use train::{
    backbone::Backbone,
    config::LiftConfig,
    data::{cache, loader::Shape, photos as folders, source::Source},
    head::{Head, HeadShape},
    lift::{self, HEAD, Job},
    loss::cosine_distance,
    optim::Adam,
    validation::Scores,
};

use crate::support::{head_file, photos, quick, tiny_model};

#[test]
fn a_head_overfits_one_batch() {
    tch::manual_seed(3);
    let store = nn::VarStore::new(Device::Cpu);
    let head = Head::new(&store.root(), HeadShape { form: LiftForm::Official, channels: 16, patch: 16, width: 0, window: 1 });
    let random = |size: &[i64]| Tensor::randn(size, (Kind::Float, Device::Cpu));
    let (image, features, target) = (random(&[1, 3, 32, 32]), random(&[1, 16, 2, 2]), random(&[1, 16, 4, 4]));
    let mut adam = Adam::new(&store);
    let mut loss = || {
        let loss = cosine_distance(&head.forward(&image, &features, true), &target);
        adam.accumulate(&loss);
        adam.step(1e-2);
        loss.double_value(&[])
    };
    let first = loss();
    let last = (0..400).map(|_| loss()).last().unwrap();
    assert!(first > 0.7 && last < 0.1, "{first} to {last}");
}

#[test]
fn gradients_of_several_batches_add_up_to_one_step() {
    tch::manual_seed(5);
    let targets = Tensor::randn([2, 4], (Kind::Float, Device::Cpu));
    // The same four weights, once with both targets in one loss and once with one after the other.
    let moved = |parts: &[&[i64]]| {
        let store = nn::VarStore::new(Device::Cpu);
        let weights = store.root().zeros("weights", &[4]);
        let mut adam = Adam::new(&store);
        for part in parts {
            let of = targets.index_select(0, &Tensor::from_slice(part));
            adam.accumulate(&(&of - &weights).square().sum(Kind::Float));
        }
        adam.step(0.1);
        adam.accumulate(&(&weights * 3.0).square().sum(Kind::Float));
        adam.step(0.1);
        weights.copy()
    };
    assert!(moved(&[&[0], &[1]]).allclose(&moved(&[&[0, 1]]), 1e-6, 1e-7, false));
    assert!(!moved(&[&[0]]).allclose(&moved(&[&[0, 1]]), 1e-6, 1e-7, false));
}

/// Cached examples of a few photos, and everything a run needs.
struct Bench {
    folder: tempfile::TempDir,
    images: tempfile::TempDir,
    model: PathBuf,
    config: LiftConfig,
    train: Vec<PathBuf>,
    validation: Vec<PathBuf>,
    shape: Shape,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = quick();
        let entry = tiny_model(&folder.path().join("models"));
        let mut backbone = Backbone::open(&entry.dir, |default| config.tap(default), Device::Cpu).unwrap();
        let images = photos(12);
        let split = folders::find(&[images.path().to_path_buf()], config.validation).unwrap();
        let place = folder.path().join("cache");
        let mut fill = |photos| cache::fill(photos, &mut backbone, &config, (&place, 1 << 30)).unwrap();
        let (train, validation) = (fill(&split.train), fill(&split.validation));
        let normalisation = backbone.normalisation();
        let shape = Shape { grid: 4, size: 64, scales: 2, channels: 64, normalisation, device: Device::Cpu };
        Self { folder, images, model: entry.dir, config, train, validation, shape }
    }

    fn run(&self, out: &Path, stop: &AtomicBool, resume: bool) -> anyhow::Result<Scores> {
        self.run_on(Source::Cached(self.train.clone()), out, stop, resume)
    }

    /// The same photos without a cache.
    fn live(&self) -> Source {
        let backbone = Backbone::open(&self.model, |default| self.config.tap(default), Device::Cpu).unwrap();
        let split = folders::find(&[self.images.path().to_path_buf()], self.config.validation).unwrap();
        Source::live(split.train, backbone, &self.config)
    }

    fn run_on(&self, source: Source, out: &Path, stop: &AtomicBool, resume: bool) -> anyhow::Result<Scores> {
        let head = HeadShape::new(&self.config, 64, 16);
        let validation = self.validation.clone();
        let tap = Tap { facet: Facet::Token, layer: 1 };
        let card = LiftCard { tap, backbone_source_sha256: "none".into(), license: "test".into(), scores: Vec::new() };
        lift::train(&Job { config: &self.config, head, shape: self.shape, validation, card, out, stop }, source, resume)
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
    assert!(!broken.join(HEAD).exists());
    let curve = image::open(straight.join("loss.png")).unwrap();
    assert!(curve.width() > 800);
    assert_eq!(bench.run(&broken, &go, true).unwrap(), scores);
    let (straight, broken) = (head_file(&straight.join(HEAD)), head_file(&broken.join(HEAD)));
    for (name, tensor) in &straight {
        assert!(tensor.equal(&broken[name]), "{name} differs");
    }
}

#[test]
fn photos_without_a_cache_are_the_same_examples_and_new_ones_in_the_next_epoch() {
    let bench = Bench::new();
    let (mut cached, mut live) = (Source::Cached(bench.train.clone()), bench.live());
    assert_eq!(cached.len(), live.len());
    let one = |source: &mut Source, epoch: u64| source.read(&[(epoch, 1)]).unwrap().remove(0);
    let (kept, made, next) = (one(&mut cached, 0), one(&mut live, 0), one(&mut live, 1));
    assert_eq!((&kept.images, &kept.features), (&made.images, &made.features));
    assert_ne!(kept.images, next.images);
    let (straight, broken) = (bench.folder.path().join("straight"), bench.folder.path().join("broken"));
    let (go, stop) = (AtomicBool::new(false), AtomicBool::new(true));
    let scores = bench.run_on(live, &straight, &go, false).unwrap();
    bench.run_on(bench.live(), &broken, &stop, false).unwrap_err();
    assert_eq!(bench.run_on(bench.live(), &broken, &go, true).unwrap(), scores);
}

#[test]
fn a_checkpoint_of_other_settings_is_refused() {
    let mut bench = Bench::new();
    let out = bench.folder.path().join("run");
    bench.run(&out, &AtomicBool::new(true), false).unwrap_err();
    bench.config.learning_rate *= 2.0;
    let error = bench.run(&out, &AtomicBool::new(false), true).unwrap_err();
    assert!(error.to_string().contains("other settings"), "{error}");
}

#[test]
fn a_loss_that_is_no_number_stops_with_the_step_and_its_examples() {
    let bench = Bench::new();
    for file in &bench.train {
        let bytes = fs::read(file).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let poisoned: Vec<(String, safetensors::Dtype, Vec<usize>, Vec<u8>)> = tensors
            .iter()
            .map(|(name, view)| {
                // 0x7E00 is a half-precision NaN.
                let data = if name == "features_2" { [0x00, 0x7E].repeat(view.data().len() / 2) } else { view.data().to_vec() };
                (name.to_owned(), view.dtype(), view.shape().to_vec(), data)
            })
            .collect();
        let views = poisoned
            .iter()
            .map(|(name, dtype, shape, data)| (name, safetensors::tensor::TensorView::new(*dtype, shape.clone(), data).unwrap()));
        fs::write(file, safetensors::serialize(views, None).unwrap()).unwrap();
    }
    let error = bench.run(&bench.folder.path().join("run"), &AtomicBool::new(false), false).unwrap_err().to_string();
    assert!(error.contains("step 0") && error.contains(".safetensors"), "{error}");
}

#[test]
fn a_facet_or_block_that_the_model_does_not_offer_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let entry = tiny_model(folder.path());
    let config = LiftConfig { facet: Some(Facet::Key), layer: Some(7), ..quick() };
    let error = Backbone::open(&entry.dir, |default| config.tap(default), Device::Cpu).unwrap_err().to_string();
    assert!(error.contains("does not offer") && error.contains("[0, 1]"), "{error}");
}
