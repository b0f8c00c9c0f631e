//! Teaches a backbone without labels: what the loop of `fit` learns for `train pretrain`.

use std::{
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

use anyhow::ensure;
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor, nn};

use crate::{
    checkpoint::Stored,
    curve::{Chart, Line},
    data::{
        loader::{Loader, order},
        photos::Split,
    },
    fit::{Learner, Plan, fit},
    optim::{Adam, Clip, Group},
    pretrain::{
        collapse::Spread,
        config::{PretrainConfig, TeacherCrops},
        data::batch::{Batch, Cutter, whole},
        loss::{Centre, PatchTerm, image_loss, log_probabilities, patch_loss},
        network::{Likeness, Network, Role},
        schedule::Schedule,
    },
    vit::Source,
};

/// The teacher's backbone, in the folder of a run, as `densevit import` reads it.
pub const BACKBONE: &str = "backbone.safetensors";
/// Tensors of the student in a store.
const STUDENT: &str = "student";
/// Tensors of the teacher in a store.
const TEACHER: &str = "teacher";
/// Photos that are looked at, at most.
const MAX_LOOKED_AT: usize = 64;

/// What a run works on.
#[derive(Debug)]
pub struct Job<'a> {
    /// Settings.
    pub config: &'a PretrainConfig,
    /// What the backbone begins with.
    pub source: Source,
    /// Photos to learn from, and to look for collapse on.
    pub photos: Split,
    /// Where log, curve, checkpoint and backbone go.
    pub out: &'a Path,
    /// Where the steps run.
    pub device: Device,
    /// Turns true when the run should save and stop.
    pub stop: &'a AtomicBool,
}

/// A student and its teacher.
#[derive(Debug)]
pub struct PretrainLearner {
    config: PretrainConfig,
    schedule: Schedule,
    store: nn::VarStore,
    student: Network,
    teacher: Network,
    image_centre: Centre,
    patch_centre: Centre,
    /// Student's and teacher's tensors of the same name.
    pairs: Vec<(Tensor, Tensor)>,
    /// Photos to look at, `[n, 3, S, S]`.
    looked_at: Tensor,
    out: PathBuf,
    temperature: f64,
    details: Value,
}

/// What is compared with what, of one batch.
struct Terms {
    image: Tensor,
    patch: Option<Tensor>,
}

/// Trains a backbone on photos, from the beginning or from the checkpoint in `out`, and writes the teacher's. Returns how far its
/// descriptors are spread, and the learner.
///
/// # Errors
/// Those of [`fit`]; no photos; a backbone that does not fit the settings.
pub fn train(job: Job<'_>, resume: bool) -> anyhow::Result<(Spread, PretrainLearner)> {
    let Job { config, source, photos: Split { train, mut validation }, out, device, stop } = job;
    ensure!(!train.is_empty(), "there are no photos to learn from");
    validation.truncate(MAX_LOOKED_AT);
    // What cannot be kept apart is looked at all the same: there are no labels to be learned by heart.
    let looked_at = if validation.is_empty() { train.get(..train.len().min(MAX_LOOKED_AT)) } else { Some(validation.as_slice()) };
    let looked_at = whole(looked_at.unwrap_or_default(), config.global_size, device)?;
    let schedule = config.schedule(train.len());
    let mut learner = PretrainLearner::new(config, schedule, source, (looked_at, out))?;
    let adam = Adam::with_groups(&learner.store, group);
    let chart = chart();
    let plan = Plan {
        settings: config,
        steps: schedule.steps,
        accumulate: config.accumulate,
        validate_every: config.validate_every,
        ema: 0.0,
        clip: (config.clip > 0.0).then_some(Clip::Each(config.clip)),
        seed: config.seed,
        chart: &chart,
        out,
        stop,
    };
    let mut cutter = Cutter::new(train, config, device);
    let (batch, seed) = (config.batch, config.seed);
    let make = move |number| cutter.batch(&order(cutter.len(), number, batch, seed));
    let spread = fit(&plan, (&mut learner, adam), |range| Loader::start(range, make), resume)?;
    Ok((spread, learner))
}

/// Decay takes hold of all but biases and, as the authors have it, what is one vector; a CLS token is one among three axes to them.
#[must_use]
pub fn group(name: &str, tensor: &Tensor) -> Group {
    let is_spared = name.ends_with("bias") || (tensor.dim() == 1 && !name.ends_with(".cls"));
    Group { rate: 1.0, decay: f64::from(u8::from(!is_spared)) }
}

fn chart() -> Chart {
    let line = |key, name| Line { key, idx: None, name };
    Chart {
        title: "teacher, 0 to 1",
        lines: vec![
            line("entropy", "entropy of an image"),
            line("mean_entropy", "entropy of the batch"),
            line("image_spread", "spread of photos"),
            line("patch_spread", "spread of patches"),
        ],
    }
}

impl PretrainLearner {
    /// A student with fresh heads, and a teacher that is its copy.
    ///
    /// # Errors
    /// When DINO is to learn from a CLS token that the backbone does not have.
    pub fn new(
        config: &PretrainConfig,
        schedule: Schedule,
        source: Source,
        (looked_at, out): (Tensor, &Path),
    ) -> anyhow::Result<Self> {
        let has_cls = source.arch().has_cls();
        ensure!(config.selfpatch || has_cls, "these weights have no CLS token, which DINO alone (--no-selfpatch) learns from");
        let store = nn::VarStore::new(looked_at.device());
        let root = store.root();
        let network = |name: &str, role| Network::new(&(&root / name), source.clone(), config, role);
        let (student, teacher) = (network(STUDENT, Role::Student), network(TEACHER, Role::Teacher));
        let pairs = pairs(&store);
        let centre = |name: &str, n| Centre::new(&(&root / "centres"), name, n, config.centre_momentum);
        Ok(Self {
            image_centre: centre("image", config.prototypes),
            patch_centre: centre("patch", config.patch_prototypes),
            config: config.clone(),
            temperature: schedule.temperature(0),
            schedule,
            student,
            teacher,
            pairs,
            looked_at,
            out: out.to_path_buf(),
            details: Value::Null,
            store,
        })
    }

    /// The backbone that is exported.
    pub fn teacher(&mut self) -> &mut Network {
        &mut self.teacher
    }

    /// Gives the teacher the values that a file in half precision holds, so that what is compared with the file is what it says.
    fn round_teacher(&mut self) {
        tch::no_grad(|| self.pairs.iter_mut().for_each(|(_, teacher)| teacher.copy_(&teacher.to_kind(Kind::Half))));
    }

    /// What student and teacher say of a batch, compared; the centres follow.
    fn terms(&mut self, batch: &Batch) -> Terms {
        let groups: Vec<&Tensor> = std::iter::once(&batch.global).chain(&batch.local).collect();
        let n_seen = if self.config.seen_by_teacher() == TeacherCrops::All { groups.len() } else { 1 };
        let student: Vec<Likeness> = groups.iter().map(|crops| self.student.forward(crops)).collect();
        let teacher: Vec<Likeness> =
            tch::no_grad(|| groups.iter().take(n_seen).map(|crops| self.teacher.forward(crops)).collect());
        let n_photos = i64::try_from(batch.names.len()).unwrap_or(1);
        let image = self.image_term(&teacher, &student, n_photos);
        let patch = self.config.selfpatch.then(|| self.patch_term(&teacher, &student, n_photos));
        Terms { image, patch }
    }

    fn image_term(&mut self, teacher: &[Likeness], student: &[Likeness], n_photos: i64) -> Tensor {
        let by_crop = |of: &Tensor| of.view([-1, n_photos, of.size()[1]]);
        let student: Vec<&Tensor> = student.iter().map(|likeness| &likeness.image).collect();
        let student = log_probabilities(&by_crop(&Tensor::cat(&student, 0)), self.config.student_temperature);
        let global = teacher.first().map(|likeness| by_crop(&likeness.image)).unwrap_or_default();
        let global = self.image_centre.probabilities(&global, self.temperature);
        self.details = details(&global, &self.image_centre);
        self.image_centre.update(&teacher.iter().map(|likeness| &likeness.image).collect::<Vec<_>>());
        image_loss(&global, &student)
    }

    fn patch_term(&mut self, teacher: &[Likeness], student: &[Likeness], n_photos: i64) -> Tensor {
        let both = teacher.iter().zip(student).filter_map(|(t, s)| Some((t.patches.as_ref()?, s.patches.as_ref()?)));
        let both: Vec<(&Tensor, &Tensor)> = both.collect();
        let term = |(teacher, student): &(&Tensor, &Tensor)| PatchTerm {
            teacher: self.patch_centre.probabilities(teacher, self.temperature),
            student: log_probabilities(student, self.config.student_temperature),
            n_crops: teacher.size()[0] / n_photos,
        };
        let loss = patch_loss(&both.iter().map(term).collect::<Vec<_>>());
        self.patch_centre.update(&both.iter().map(|(teacher, _)| *teacher).collect::<Vec<_>>());
        loss
    }
}

/// Tensors of student and teacher of the same name, the teacher's made equal and out of reach of gradients.
fn pairs(store: &nn::VarStore) -> Vec<(Tensor, Tensor)> {
    let variables = store.variables();
    let of_teacher = |name: &str| variables.get(&format!("{TEACHER}{}", name.strip_prefix(STUDENT)?));
    let pair = |(name, student): (&String, &Tensor)| Some((student.shallow_clone(), of_teacher(name)?.shallow_clone()));
    let pairs: Vec<(Tensor, Tensor)> = variables.iter().filter_map(pair).collect();
    for (student, teacher) in &pairs {
        let mut teacher = teacher.set_requires_grad(false);
        tch::no_grad(|| teacher.copy_(student));
    }
    pairs
}

/// How sure the teacher is of an image, how sure of the batch as a whole, as shares of the most that is possible, and how far its centre
/// has gone. Collapse shows as 1 and 1 (it says nothing) or 0 and 0 (it says one thing of all).
fn details(probabilities: &Tensor, centre: &Centre) -> Value {
    let n = probabilities.size().last().copied().unwrap_or(1).max(2);
    #[expect(clippy::cast_precision_loss, reason = "a count of prototypes")]
    let most = (n as f64).ln();
    let entropy = |rows: &Tensor| {
        let each = -(rows * rows.clamp_min(1e-30).log()).sum_dim_intlist([-1i64].as_slice(), false, Kind::Float);
        each.mean(Kind::Float).double_value(&[]) / most
    };
    let rows = probabilities.reshape([-1, n]);
    let mean = rows.mean_dim([0i64].as_slice(), true, Kind::Float);
    json!({ "entropy": entropy(&rows), "mean_entropy": entropy(&mean), "centre_norm": centre.value().norm().double_value(&[]) })
}

impl Learner for PretrainLearner {
    type Settings = PretrainConfig;
    type Batch = Batch;
    type Scores = Spread;

    fn store(&self) -> &nn::VarStore {
        &self.store
    }

    fn rate(&self, step: u64) -> f64 {
        self.schedule.rate(step)
    }

    fn decay(&self, step: u64) -> f64 {
        self.schedule.decay(step)
    }

    fn holds(&self, step: u64, name: &str) -> bool {
        self.schedule.freezes_prototypes(step) && name.contains("last_layer")
    }

    fn begin(&mut self, step: u64) {
        self.temperature = self.schedule.temperature(step);
    }

    fn end(&mut self, step: u64) {
        let momentum = self.schedule.momentum(step);
        tch::no_grad(|| {
            for (student, teacher) in &mut self.pairs {
                let _followed = teacher.lerp_(student, 1.0 - momentum);
            }
        });
        self.details["decay"] = self.schedule.decay(step).into();
        self.details["momentum"] = momentum.into();
        self.details["temperature"] = self.temperature.into();
    }

    fn details(&self) -> Value {
        self.details.clone()
    }

    fn loss(&mut self, batch: &Batch) -> Tensor {
        let Terms { image, patch } = self.terms(batch);
        self.details["image_loss"] = image.double_value(&[]).into();
        let Some(patch) = patch else { return image };
        self.details["patch_loss"] = patch.double_value(&[]).into();
        image + patch * self.config.patch_weight
    }

    fn names(batch: &Batch) -> &[PathBuf] {
        &batch.names
    }

    fn validate(&mut self) -> anyhow::Result<Spread> {
        Ok(tch::no_grad(|| Spread::of(&self.teacher.descriptors(&self.looked_at))))
    }

    fn export(&mut self, _scores: &Spread) -> anyhow::Result<()> {
        let stored = if self.config.half { Stored::Half } else { Stored::Float };
        if stored == Stored::Half {
            self.round_teacher();
        }
        let file = self.teacher.vit().write_as(&self.out, BACKBONE, stored)?;
        println!("wrote {}", file.display());
        Ok(())
    }
}
