//! The loop: it learns, it resumes, it refuses.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

use densevit::manifest::{Facet, LiftForm};
use tch::{Device, Kind, Tensor, nn};
use train::{
    backbone::Backbone,
    config::LiftConfig,
    data::{cache, loader::Shape, photos as folders},
    fit::{self, HEAD, Job},
    head::{Head, HeadShape},
    loss::cosine_distance,
    optim::Adam,
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
        adam.step(&loss, 1e-2);
        loss.double_value(&[])
    };
    let first = loss();
    let last = (0..400).map(|_| loss()).last().unwrap();
    assert!(first > 0.7 && last < 0.1, "{first} to {last}");
}

/// Cached examples of a few photos, and everything a run needs.
struct Bench {
    folder: tempfile::TempDir,
    config: LiftConfig,
    train: Vec<PathBuf>,
    validation: Vec<PathBuf>,
    shape: Shape,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = quick();
        let entry = tiny_model(&folder.path().join("models"), None);
        let mut backbone = Backbone::open(&entry.dir, |default| config.tap(default)).unwrap();
        let images = photos(12);
        let split = folders::find(&[images.path().to_path_buf()], config.validation).unwrap();
        let place = folder.path().join("cache");
        let mut fill = |photos| cache::fill(photos, &mut backbone, &config, (&place, 1 << 30)).unwrap();
        let (train, validation) = (fill(&split.train), fill(&split.validation));
        let shape = Shape { grid: 4, size: 64, channels: 64, mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] };
        Self { folder, config, train, validation, shape }
    }

    fn run(&self, out: &Path, stop: &AtomicBool, resume: bool) -> anyhow::Result<fit::Scores> {
        let head = HeadShape::new(&self.config, 64, 16);
        let (train, validation) = (self.train.clone(), self.validation.clone());
        fit::train(&Job { config: &self.config, head, shape: self.shape, train, validation, out, stop }, resume)
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
    assert_eq!(bench.run(&broken, &go, true).unwrap(), scores);
    let (straight, broken) = (head_file(&straight.join(HEAD)), head_file(&broken.join(HEAD)));
    for (name, tensor) in &straight {
        assert!(tensor.equal(&broken[name]), "{name} differs");
    }
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
    let entry = tiny_model(folder.path(), None);
    let config = LiftConfig { facet: Some(Facet::Key), layer: Some(7), ..quick() };
    let error = Backbone::open(&entry.dir, |default| config.tap(default)).unwrap_err().to_string();
    assert!(error.contains("does not offer") && error.contains("[0, 1]"), "{error}");
}
