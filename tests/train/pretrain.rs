//! Backbones that are trained from nothing: their networks, their runs, and what the server makes of them.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    sync::atomic::AtomicBool,
    time::Duration,
};

use densevit::{
    grpc::pb::v1 as pb,
    import::{ImportOptions, import},
    manifest::{Facet, ModelEntry, PositionVariant, ResizePolicy, Tap, load_dir},
    tensor::RgbImage,
};
use serde_json::Value;
use tch::{Device, Kind, Tensor, nn};
use train::{
    backbone::Backbone,
    checkpoint::{self, Stored},
    data::photos as folders,
    eval::to_tensor,
    fit::Learner as _,
    pretrain::{
        collapse::Spread,
        config::{PretrainConfig, TeacherCrops},
        data::batch::{Batch, Cutter, NORMALISATION},
        install::install,
        learner::{self, BACKBONE, Job, PretrainLearner},
    },
    vit::{FreshVit, Source, Vit, VitOptions},
};

use crate::{
    circle,
    support::{error, fixture, photos},
};

/// Single precision on both sides, in different orders.
const FP32: f64 = 1e-4;

const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);

fn shape(has_cls: bool) -> FreshVit {
    FreshVit { patch: 8, width: 32, depth: 2, heads: 2, grid: 4, has_cls }
}

/// Settings that take a moment.
fn quick() -> PretrainConfig {
    PretrainConfig {
        patch: 8,
        width: 32,
        depth: 2,
        heads: Some(2),
        image_size: 32,
        global_size: 32,
        local_size: 16,
        n_local: 2,
        prototypes: 32,
        patch_prototypes: 24,
        hidden: 32,
        bottleneck: 16,
        drop_path: 0.1,
        batch: 4,
        steps: Some(6),
        warmup_epochs: 0.0,
        learning_rate: 0.1,
        momentum: 0.9,
        validation: 0.2,
        validate_every: 3,
        ..PretrainConfig::default()
    }
}

fn source(config: &PretrainConfig) -> Source {
    tch::manual_seed(i64::try_from(config.seed).unwrap());
    Source::fresh(config.fresh()).with_registers(config.registers).unwrap()
}

fn vit(source: Source) -> (nn::VarStore, Vit) {
    let store = nn::VarStore::new(Device::Cpu);
    let vit = Vit::new(&store.root(), source, VitOptions::default());
    (store, vit)
}

fn seeded(has_cls: bool, n_registers: u32) -> (nn::VarStore, Vit) {
    tch::manual_seed(7);
    vit(Source::fresh(shape(has_cls)).with_registers(n_registers).unwrap())
}

fn image(patch: u32) -> RgbImage {
    let (height, width) = (3 * patch, 5 * patch);
    RgbImage::new(height, width, (0..height * width * 3).map(|idx| u8::try_from(idx * 7 % 251).unwrap()).collect()).unwrap()
}

fn imported(source: &Path, out: &Path, name: &str) -> ModelEntry {
    import(&ImportOptions::new(source.to_path_buf(), out.to_path_buf(), name), |_entry| Ok(())).unwrap().entry
}

fn served(entry: &ModelEntry, tap: Tap) -> Tensor {
    let mut backbone = Backbone::open(&entry.dir, |_default| tap, Device::Cpu).unwrap();
    to_tensor(&backbone.features(&image(backbone.patch())).unwrap()).permute([0, 2, 3, 1])
}

#[test]
fn no_registers_are_the_plain_model_bit_for_bit_and_some_change_no_shape() {
    let pixels = Tensor::rand([2, 3, 24, 40], CPU);
    let tokens = |(_store, mut vit): (nn::VarStore, Vit)| tch::no_grad(|| vit.tokens(&pixels, false));
    for has_cls in [true, false] {
        tch::manual_seed(7);
        let plain = tokens(vit(Source::fresh(shape(has_cls))));
        let (none, four) = (tokens(seeded(has_cls, 0)), tokens(seeded(has_cls, 4)));
        assert_eq!(none.patches, plain.patches);
        assert_eq!((four.patches.size(), four.grid), (vec![2, 15, 32], [3, 5]));
        assert!(four.patches != plain.patches, "registers take part in the attention");
        assert_eq!(
            [&none, &four].map(|tokens| tokens.cls.as_ref().map(Tensor::size)),
            [has_cls.then(|| vec![2, 32]), has_cls.then(|| vec![2, 32])]
        );
        // All other weights are the same.
        let (with, without) = (seeded(has_cls, 4).0.variables(), seeded(has_cls, 0).0.variables());
        assert!(without.iter().all(|(name, tensor)| name == "registers" || with[name] == *tensor));
        assert_eq!(with["registers"].size(), [4, 32]);
    }
    let plain = Source::open(&fixture("backbones/dino_s16.safetensors")).unwrap();
    let pixels = Tensor::rand([1, 3, 48, 48], CPU);
    let run = |source: Source| tch::no_grad(|| vit(source).1.tokens(&pixels, false).patches);
    assert_eq!(run(plain.clone().with_registers(0).unwrap()), run(plain));
}

#[test]
fn fresh_weights_begin_as_published() {
    let (store, _vit) = seeded(true, 4);
    let variables = store.variables();
    let spread = |name: &str| variables[name].std(false).double_value(&[]);
    for (name, expected) in [("position", 0.02), ("blocks.1.qkv.weight", 0.02), ("registers", 1e-6)] {
        assert!((spread(name) / expected - 1.0).abs() < 0.2, "{name}: {}", spread(name));
    }
    // Uniform within one over the root of 3 * 8 * 8.
    let bound = 192f64.sqrt().recip();
    let patch = &variables["patch.weight"];
    assert!(patch.abs().max().double_value(&[]) <= bound && (spread("patch.weight") / bound - 3f64.sqrt().recip()).abs() < 0.02);
    assert_eq!([spread("blocks.0.norm1.weight"), spread("blocks.0.proj.bias")], [0.0, 0.0]);
}

#[test]
fn what_was_trained_is_served_with_and_without_cls_token_and_registers() {
    let folder = tempfile::tempdir().unwrap();
    for (idx, (has_cls, n_registers)) in [(true, 0), (true, 4), (false, 0), (false, 4)].into_iter().enumerate() {
        let (store, mut vit) = seeded(has_cls, n_registers);
        // Far from where they began, where all of them matter.
        tch::no_grad(|| drop(store.variables()["registers"].shallow_clone().normal_(0.0, 1.0)));
        tch::no_grad(|| store.variables().into_values().for_each(|mut tensor| drop(tensor.g_add_(&(tensor.randn_like() * 0.1)))));
        let file = vit.write_as(&folder.path().join(format!("run{idx}")), BACKBONE, Stored::Float).unwrap();
        let entry = imported(&file, folder.path(), &format!("model{idx}"));
        let arch = &entry.manifest.architecture;
        assert_eq!((arch.has_cls(), arch.registers, arch.heads), (has_cls, n_registers, 2));
        assert_eq!(arch.parameters, vit.arch().parameters);
        let variant = if n_registers > 0 { PositionVariant::Antialias } else { PositionVariant::Offset };
        assert_eq!(entry.manifest.position.variant, variant);
        let pixels = NORMALISATION.of(&image(8));
        let token = Tap { facet: Facet::Token, layer: 1 };
        let got = tch::no_grad(|| vit.taps(&pixels, &[1], false)).remove(0);
        assert!(error(&got, &served(&entry, token)) <= FP32, "{arch:?}");
        let tokens = tch::no_grad(|| vit.tokens(&pixels, false));
        let normed = tch::no_grad(|| vit.normed(&tokens.patches)).view([1, 3, 5, 32]);
        let default = Tap { facet: if has_cls { Facet::NormToken } else { Facet::Token }, layer: 1 };
        assert_eq!(
            (entry.manifest.backbone.default, entry.manifest.backbone.offers(Tap { facet: Facet::NormToken, layer: 1 })),
            (default, has_cls)
        );
        assert!(error(&normed, &served(&entry, default)) <= FP32, "{arch:?}");
    }
}

#[test]
fn registers_join_weights_that_have_none_and_no_others() {
    let folder = tempfile::tempdir().unwrap();
    let source = Source::open(&fixture("backbones/dinov2_s14.safetensors")).unwrap().with_registers(3).unwrap();
    let (_store, mut vit) = vit(source);
    let file = vit.write_as(folder.path(), BACKBONE, Stored::Float).unwrap();
    let entry = imported(&file, folder.path(), "joined");
    assert_eq!((entry.manifest.architecture.registers, entry.manifest.architecture.family.as_str()), (3, "dinov2"));
    let got = tch::no_grad(|| vit.taps(&NORMALISATION.of(&image(14)), &[1], false)).remove(0);
    assert!(error(&got, &served(&entry, Tap { facet: Facet::Token, layer: 1 })) <= FP32);
    let four = Source::open(&fixture("backbones/dinov2_s14_reg4.safetensors")).unwrap();
    assert!(four.clone().with_registers(4).is_ok());
    assert!(four.with_registers(2).unwrap_err().to_string().contains("have 4 registers"));
}

/// A learner, and a batch of crops of photos.
fn step(config: &PretrainConfig) -> (PretrainLearner, Batch) {
    let images = photos(4);
    let split = folders::find(&[images.path().to_path_buf()], 0.0).unwrap();
    let schedule = config.schedule(split.train.len());
    let looked_at = Tensor::rand([2, 3, 32, 32], CPU);
    let learner = PretrainLearner::new(config, schedule, source(config), (looked_at, Path::new(""))).unwrap();
    let batch = Cutter::new(split.train, config, Device::Cpu).batch(&[(0, 0), (0, 1), (0, 2)]).unwrap();
    (learner, batch)
}

#[test]
fn crops_of_a_batch_come_by_size_crop_after_crop() {
    let (_learner, batch) = step(&quick());
    assert_eq!((batch.global.size(), batch.local.map(|local| local.size())), (vec![6, 3, 32, 32], Some(vec![6, 3, 16, 16])));
    assert_eq!(batch.names.len(), 3);
    let none = PretrainConfig { n_local: 0, ..quick() };
    assert!(step(&none).1.local.is_none());
}

#[test]
fn the_teacher_begins_as_the_student_gets_no_gradients_and_follows_by_its_share() {
    let config = PretrainConfig { momentum: 0.75, ..quick() };
    let (mut learner, batch) = step(&config);
    let name = "backbone.blocks.0.qkv.weight";
    let of = |learner: &PretrainLearner, role: &str| learner.store().variables()[&format!("{role}.{name}")].shallow_clone();
    assert_eq!(of(&learner, "student"), of(&learner, "teacher"));
    learner.loss(&batch).backward();
    assert!(of(&learner, "student").grad().abs().max().double_value(&[]) > 0.0);
    let variables = learner.store().variables();
    assert!(
        variables
            .iter()
            .all(|(name, tensor)| !name.starts_with("teacher.") || (!tensor.requires_grad() && !tensor.grad().defined()))
    );
    let before = of(&learner, "teacher").copy();
    tch::no_grad(|| drop(of(&learner, "student").g_add_scalar_(1.0)));
    learner.end(0);
    // A quarter of the way at first, and none of it at the last step.
    assert!(error(&of(&learner, "teacher"), &(before + 0.25)) <= 1e-6);
    let before = of(&learner, "teacher").copy();
    learner.end(6);
    assert_eq!(of(&learner, "teacher"), before);
}

#[test]
fn centres_follow_all_crops_or_the_global_ones_and_prototypes_wait_for_an_epoch() {
    let centres = |teacher_crops, selfpatch| {
        let (mut learner, batch) = step(&PretrainConfig { teacher_crops, selfpatch, ..quick() });
        let loss = learner.loss(&batch).double_value(&[]);
        assert!(loss.is_finite());
        let value = |name: &str| learner.store().variables()[name].copy();
        (value("centres.image"), value("centres.patch"))
    };
    let (all, global) = (centres(TeacherCrops::All, true), centres(TeacherCrops::Global, true));
    assert!(all.0 != global.0 && all.1 != global.1);
    // DINO alone has nothing to say of patches, and its teacher never sees a local crop.
    assert_eq!(centres(TeacherCrops::All, false).0, centres(TeacherCrops::Global, false).0);
    assert_eq!(centres(TeacherCrops::All, false).1.abs().max().double_value(&[]), 0.0);
    // Four photos, four at once: a step is an epoch.
    let (learner, _batch) = step(&quick());
    let held = |step| learner.holds(step, "student.image_head.last_layer.weight_v");
    assert!(held(0) && !held(1) && !learner.holds(0, "student.image_head.mlp.0.weight"));
}

#[test]
fn dino_alone_needs_a_cls_token() {
    let config = PretrainConfig { selfpatch: false, ..quick() };
    let patches_only = Source::fresh(quick().fresh());
    let learner =
        PretrainLearner::new(&config, config.schedule(4), patches_only, (Tensor::zeros([1, 3, 32, 32], CPU), Path::new("")));
    assert!(learner.unwrap_err().to_string().contains("no CLS token"));
}

struct Bench {
    folder: tempfile::TempDir,
    images: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), images: photos(12) }
    }

    fn run(&self, config: &PretrainConfig, out: &Path) -> (Spread, PretrainLearner) {
        let photos = folders::find(&[self.images.path().to_path_buf()], config.validation).unwrap();
        let stop = AtomicBool::new(false);
        learner::train(Job { config, source: source(config), photos, out, device: Device::Cpu, stop: &stop }, false).unwrap()
    }
}

/// A run in a process of its own: what it draws is drawn by nobody else.
fn process(bench: &Bench, config: &PretrainConfig, out: &Path, flags: &[&str]) -> Command {
    let file = bench.folder.path().join("settings.toml");
    fs::write(&file, toml::to_string(config).unwrap()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_train"));
    command.args(["pretrain", "--images"]).arg(bench.images.path()).arg("--out").arg(out).arg("--config").arg(file).args(flags);
    command.env("OMP_NUM_THREADS", "1").stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// Ends a run by Ctrl-C when it has made some steps. Returns what it says last.
fn interrupted(mut run: Command, out: &Path) -> String {
    let child = run.spawn().unwrap();
    let n_lines = || fs::read_to_string(out.join("log.jsonl")).map_or(0, |log| log.lines().count());
    while n_lines() < 2 {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    String::from_utf8(child.wait_with_output().unwrap().stderr).unwrap()
}

#[test]
fn a_run_that_was_interrupted_ends_where_a_straight_one_ends() {
    let bench = Bench::new();
    for (name, selfpatch) in [("selfpatch", true), ("dino", false)] {
        let config = PretrainConfig { selfpatch, registers: 2, accumulate: 2, steps: Some(24), validate_every: 10, ..quick() };
        let [straight, broken] = ["straight", "broken"].map(|kind| bench.folder.path().join(format!("{name}-{kind}")));
        assert!(process(&bench, &config, &straight, &[]).status().unwrap().success());
        // A machine that is busy elsewhere may let a run end before it hears of the interruption.
        let is_stopped = (0..5).any(|_| interrupted(process(&bench, &config, &broken, &[]), &broken).contains("stopped at step"));
        assert!(is_stopped, "no run was interrupted");
        assert!(!broken.join(BACKBONE).exists());
        assert!(process(&bench, &config, &broken, &["--resume"]).status().unwrap().success());
        let bytes = |run: &Path| fs::read(run.join(BACKBONE)).unwrap();
        assert!(bytes(&straight) == bytes(&broken), "{name}: the backbones differ");
        let state = |run: &Path| checkpoint::read(&run.join("checkpoint.safetensors")).unwrap();
        assert!(state(&straight) == state(&broken), "{name}: the checkpoints differ");
        let other = process(&bench, &PretrainConfig { seed: 1, ..config }, &broken, &["--resume"]).output().unwrap();
        let said = String::from_utf8(other.stderr).unwrap();
        assert!(!other.status.success() && said.contains("other settings"), "{said}");
    }
}

#[test]
fn thirty_steps_lower_the_loss_and_leave_a_model_that_is_served() {
    let bench = Bench::new();
    for (name, selfpatch, registers) in [("dino", false, 0), ("selfpatch", true, 2)] {
        // So few steps need a centre that is soon there, and a teacher that stays, and is no surer than published.
        let mild = PretrainConfig { teacher_temperature: 0.04, first_teacher_temperature: 0.04, ..quick() };
        let steady = PretrainConfig { momentum: 0.996, centre_momentum: 0.5, bottleneck: 128, drop_path: 0.0, ..mild };
        let config = PretrainConfig { selfpatch, registers, half: selfpatch, steps: Some(30), validate_every: 30, ..steady };
        let out = bench.folder.path().join(name);
        let (spread, mut learner) = bench.run(&config, &out);
        assert!(spread.images.is_finite() && spread.patches > 0.0, "{spread:?}");
        let log = fs::read_to_string(out.join("log.jsonl")).unwrap();
        let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let losses: Vec<f64> = lines.iter().filter_map(|line| line["loss"].as_f64()).collect();
        assert!(losses.len() == 30 && losses.iter().all(|loss| loss.is_finite()), "{losses:?}");
        let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
        // The first step knows no centre: student and teacher agree that all is one.
        assert!(mean(&losses[25..]) < 0.95 * mean(&losses[1..6]), "{losses:?}");
        assert!(lines[0]["entropy"].as_f64().is_some_and(|entropy| (0.0..=1.0).contains(&entropy)), "{}", lines[0]);
        assert_eq!(lines[0]["patch_loss"].is_number(), selfpatch);
        assert!(out.join("loss.png").is_file() && out.join("config.toml").is_file());
        let options = ImportOptions::new(out.join(BACKBONE), bench.folder.path().join("models"), name);
        let (entry, difference) = install(&options, learner.teacher().vit()).unwrap();
        assert!(difference <= FP32 && entry.manifest.architecture.registers == registers, "{difference}");
        // Beside the values there are only their names.
        let n_bytes = fs::metadata(out.join(BACKBONE)).unwrap().len() as f64 / entry.manifest.architecture.parameters as f64;
        assert!((n_bytes - if selfpatch { 2.0 } else { 4.0 }).abs() < 0.3, "{n_bytes} bytes a value");
        assert_eq!(served(&entry, entry.manifest.backbone.default).size(), [1, 3, 5, 32]);
    }
}

/// Rows, columns and channels of the answer for an image of 48 x 80 pixels, or why there is none.
async fn asked(models: &Path, cls_token: bool) -> Result<[u32; 3], String> {
    let (server, client) = circle::start(models).await;
    let raw = pb::RawImage { height: 48, width: 80, data: vec![90; 48 * 80 * 3].into() };
    let request = pb::ExtractRequest {
        image: Some(pb::Image { source: Some(pb::image::Source::Raw(raw)) }),
        features: Some(pb::FeatureOptions { cls_token, ..Default::default() }),
        preprocess: Some(circle::native()),
        ..Default::default()
    };
    let answer = client.extract_whole(request).await;
    server.run(async {}).await;
    answer.map(|answer| [answer.header.rows, answer.header.cols, answer.header.channels]).map_err(|error| format!("{error:?}"))
}

#[test]
fn one_command_makes_a_model_of_photos_that_answers_and_says_that_it_has_no_cls_token() {
    let bench = Bench::new();
    let models = bench.folder.path().join("models");
    let config = PretrainConfig { steps: Some(2), registers: 1, ..quick() };
    let mut command =
        process(&bench, &config, &bench.folder.path().join("run"), &["--install", "--name", "mine", "--license", "test"]);
    // Paths of the runtime's library are relative to the project.
    command.arg("--models").arg(&models).current_dir(format!("{}/../..", env!("CARGO_MANIFEST_DIR")));
    let output = command.stdout(Stdio::piped()).output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && stdout.contains("mine/1; served, it gives what it gave here"), "{stdout}{stderr}");
    let preprocess = load_dir(&models.join("mine/1")).unwrap().manifest.preprocess;
    assert_eq!(preprocess.resize, ResizePolicy::ShortSide { pixels: 224 });
    let runtime = tokio::runtime::Runtime::new().unwrap();
    assert_eq!(runtime.block_on(asked(&models, false)), Ok([6, 10, 32]));
    let refused = runtime.block_on(asked(&models, true)).unwrap_err();
    assert!(refused.contains("features.cls_token") && refused.contains("mine has no CLS token"), "{refused}");
}
