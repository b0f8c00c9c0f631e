//! Adam (Kingma and Ba, 2015), with decoupled decay and groups (AdamW, Loshchilov and Hutter, 2019), over named tensors, with moments
//! that can be saved: the framework's own cannot.

use std::collections::BTreeMap;

use tch::{Kind, Tensor, nn::VarStore};

use crate::checkpoint;

const BETA1: f64 = 0.9;
const BETA2: f64 = 0.999;
const EPSILON: f64 = 1e-8;

/// How a tensor moves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Group {
    /// Factor on the learning rate.
    pub rate: f64,
    /// Share of the weight that a step takes off, times the learning rate.
    pub decay: f64,
}

impl Group {
    /// Plain Adam.
    pub const PLAIN: Self = Self { rate: 1.0, decay: 0.0 };
}

/// How far a step goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// Learning rate.
    pub rate: f64,
    /// Factor on the decay of every group.
    pub decay: f64,
}

/// What is shortened when it is longer than this.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Clip {
    /// All gradients as one vector.
    Whole(f64),
    /// The gradient of each tensor by itself (DINO).
    Each(f64),
}

/// State of the optimiser.
#[derive(Debug)]
pub struct Adam {
    weights: BTreeMap<String, (Tensor, Group)>,
    first: BTreeMap<String, Tensor>,
    second: BTreeMap<String, Tensor>,
    /// Steps that each tensor has made, in the order of the names: one that was held begins later.
    n_steps: Vec<i32>,
}

impl Adam {
    /// Over all trainable tensors of `store`, with moments of zero.
    #[must_use]
    pub fn new(store: &VarStore) -> Self {
        Self::with_groups(store, |_name, _tensor| Group::PLAIN)
    }

    /// The same; `group` says how each tensor moves.
    #[must_use]
    pub fn with_groups(store: &VarStore, group: impl Fn(&str, &Tensor) -> Group) -> Self {
        let trainable = store.variables().into_iter().filter(|(_, tensor)| tensor.requires_grad());
        let weights: BTreeMap<_, _> = trainable
            .map(|(name, tensor)| {
                let group = group(&name, &tensor);
                (name, (tensor, group))
            })
            .collect();
        let zeros = || weights.iter().map(|(name, (tensor, _))| (name.clone(), tensor.zeros_like().detach())).collect();
        Self { first: zeros(), second: zeros(), n_steps: vec![0; weights.len()], weights }
    }

    /// Adds the gradient of `loss` to those that wait for a step.
    pub fn accumulate(&self, loss: &Tensor) {
        loss.backward();
    }

    /// Shortens the gradients that were accumulated. Returns their norm together, as it was before.
    pub fn clip(&mut self, clip: Clip) -> f64 {
        let gradients: Vec<Tensor> = self.weights.values().map(|(weight, _)| weight.grad()).filter(Tensor::defined).collect();
        if gradients.is_empty() {
            return 0.0;
        }
        tch::no_grad(|| {
            let norms: Vec<Tensor> = gradients.iter().map(Tensor::norm).collect();
            let norms = Tensor::stack(&norms, 0);
            let whole = norms.norm().double_value(&[]);
            let shorten = |mut gradient: Tensor, norm: f64, limit: f64| {
                if norm > limit {
                    let _shortened = gradient.g_mul_scalar_(limit / norm);
                }
            };
            match clip {
                Clip::Whole(limit) => gradients.into_iter().for_each(|gradient| shorten(gradient, whole, limit)),
                Clip::Each(limit) => (0..).zip(gradients).for_each(|(idx, gradient)| {
                    shorten(gradient, norms.double_value(&[idx]), limit);
                }),
            }
            whole
        })
    }

    /// One step along the gradients that were accumulated; then there are none.
    pub fn step(&mut self, rate: f64) {
        self.step_but(Pace { rate, decay: 1.0 }, |_name| false);
    }

    /// The same; tensors that `holds` names stay as they are, and their gradients are dropped.
    pub fn step_but(&mut self, pace: Pace, holds: impl Fn(&str) -> bool) {
        tch::no_grad(|| {
            let moments = self.first.values_mut().zip(self.second.values_mut()).zip(&mut self.n_steps);
            for ((name, (weight, group)), ((first, second), n_steps)) in self.weights.iter_mut().zip(moments) {
                let gradient = weight.grad();
                if !gradient.defined() {
                    continue;
                }
                if holds(name) {
                    weight.zero_grad();
                    continue;
                }
                *n_steps += 1;
                let (bias1, bias2) = (1.0 - BETA1.powi(*n_steps), 1.0 - BETA2.powi(*n_steps));
                let (rate, decay) = (pace.rate * group.rate, pace.decay * group.decay);
                let _updated = first.g_mul_scalar_(BETA1).g_add_(&(&gradient * (1.0 - BETA1)));
                let _updated = second.g_mul_scalar_(BETA2).g_add_(&(&gradient * &gradient * (1.0 - BETA2)));
                let spread = (&*second / bias2).sqrt() + EPSILON;
                if decay > 0.0 {
                    let _decayed = weight.g_mul_scalar_(1.0 - rate * decay);
                }
                let _updated = weight.g_sub_(&(&*first * (rate / bias1) / spread));
                weight.zero_grad();
            }
        });
    }

    /// Moments and number of steps, for a checkpoint.
    pub fn state(&self) -> impl Iterator<Item = (String, Tensor)> + '_ {
        let under = |kind: &'static str, moments| named(moments).map(move |(name, tensor)| (format!("{kind}.{name}"), tensor));
        let n_steps = Tensor::from_slice(&self.n_steps).to_kind(Kind::Float);
        let counted = std::iter::once(("adam.steps".to_owned(), n_steps));
        under("adam.first", &self.first).chain(under("adam.second", &self.second)).chain(counted)
    }

    /// Takes the state of a checkpoint. Returns the first name that it lacks.
    pub fn restore(&mut self, saved: &BTreeMap<String, Tensor>) -> Option<String> {
        for (kind, moments) in [("adam.first", &self.first), ("adam.second", &self.second)] {
            let missing = checkpoint::assign(named(moments), |name| saved.get(&format!("{kind}.{name}")));
            if missing.is_some() {
                return missing;
            }
        }
        let steps = saved.get("adam.steps").and_then(|steps| Vec::<f32>::try_from(steps).ok()).unwrap_or_default();
        // Older checkpoints hold one number for all.
        let steps = if steps.len() == 1 { steps.repeat(self.n_steps.len()) } else { steps };
        if steps.len() != self.n_steps.len() {
            return Some("adam.steps".into());
        }
        #[expect(clippy::cast_possible_truncation, reason = "whole numbers that were i32")]
        self.n_steps.iter_mut().zip(steps).for_each(|(own, saved)| *own = saved as i32);
        None
    }
}

/// Other handles of the same tensors, by name.
fn named(tensors: &BTreeMap<String, Tensor>) -> impl Iterator<Item = (String, Tensor)> + '_ {
    tensors.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone()))
}

/// Moving average of all tensors of a store, statistics included.
#[derive(Debug)]
pub struct Average {
    tensors: BTreeMap<String, Tensor>,
    keep: f64,
}

impl Average {
    /// Begins with the present values; `keep` is the share of the old value that stays in a step.
    #[must_use]
    pub fn new(store: &VarStore, keep: f64) -> Self {
        let tensors = store.variables().into_iter().map(|(name, tensor)| (name, tensor.detach().copy())).collect();
        Self { tensors, keep }
    }

    /// Takes the present values in. Early steps count more, so that the first values are soon forgotten.
    pub fn update(&mut self, store: &VarStore, step: u64) {
        #[expect(clippy::cast_precision_loss, reason = "steps are far fewer than 2^53")]
        let keep = self.keep.min((1.0 + step as f64) / (10.0 + step as f64));
        let present = store.variables();
        tch::no_grad(|| {
            for (name, tensor) in &mut self.tensors {
                if let Some(value) = present.get(name) {
                    let _updated = tensor.g_mul_scalar_(keep).g_add_(&(value * (1.0 - keep)));
                }
            }
        });
    }

    /// The averaged tensors, by name.
    #[must_use]
    pub fn tensors(&self) -> &BTreeMap<String, Tensor> {
        &self.tensors
    }

    /// Takes the state of a checkpoint. Returns the first name that it lacks.
    #[must_use]
    pub fn restore(&self, saved: &BTreeMap<String, Tensor>) -> Option<String> {
        checkpoint::assign(named(&self.tensors), |name| saved.get(&format!("average.{name}")))
    }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    #[test]
    fn groups_scale_the_rate_and_decay_and_long_gradients_are_shortened() {
        let store = VarStore::new(Device::Cpu);
        let (fast, slow) = (store.root().var("fast", &[2], tch::nn::Init::Const(1.0)), store.root().ones("slow", &[2]));
        let group = |name: &str, _: &Tensor| match name {
            "fast" => Group { rate: 10.0, decay: 0.5 },
            _ => Group::PLAIN,
        };
        let mut adam = Adam::with_groups(&store, group);
        adam.accumulate(&(&fast * 3.0 + &slow * 4.0).sum(Kind::Float));
        // sqrt(2 * 9 + 2 * 16) is 7.07; shortened to 5, each share is 1 / sqrt(2).
        assert!((adam.clip(Clip::Whole(5.0)) - 50f64.sqrt()).abs() < 1e-5);
        assert!((adam.clip(Clip::Whole(5.0)) - 5.0).abs() < 1e-5);
        adam.step(0.01);
        // The first step of Adam is the rate itself; decay takes 0.1 * 0.5 of the weight first.
        let value = |tensor: &Tensor| tensor.double_value(&[0]);
        assert!((value(&fast) - (0.95 - 0.1)).abs() < 1e-6 && (value(&slow) - 0.99).abs() < 1e-6, "{fast} {slow}");
    }

    #[test]
    fn tensors_are_clipped_each_by_itself_and_one_that_was_held_begins_later() {
        let store = VarStore::new(Device::Cpu);
        let (long, short) = (store.root().ones("long", &[2]), store.root().ones("short", &[2]));
        let mut adam = Adam::new(&store);
        let gradients = |adam: &Adam| adam.accumulate(&(&long * 30.0 + &short * 0.4).sum(Kind::Float));
        gradients(&adam);
        let _whole = adam.clip(Clip::Each(3.0));
        let norm = |tensor: &Tensor| tensor.grad().norm().double_value(&[]);
        assert!((norm(&long) - 3.0).abs() < 1e-5 && (norm(&short) - 0.32f64.sqrt()).abs() < 1e-5);
        let pace = Pace { rate: 0.1, decay: 1.0 };
        adam.step_but(pace, |name| name == "long");
        assert_eq!((long.double_value(&[0]), norm(&long)), (1.0, 0.0));
        gradients(&adam);
        adam.step_but(pace, |_name| false);
        // A first step of Adam is the rate, whenever it comes.
        assert!((long.double_value(&[0]) - 0.9).abs() < 1e-6, "{long}");
    }
}
