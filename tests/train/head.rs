//! The head's forward pass and gradients.

use densevit::manifest::LiftForm;
use tch::{Device, Kind, Tensor, nn};
use train::{
    config::Products,
    head::{Head, HeadShape},
    loss::cosine_distance,
};

use crate::support::{error, tensors};

/// Both are single-precision convolutions, summed in different orders.
const FP32: f64 = 1e-4;

fn shape(form: LiftForm, patch: i64, width: i64) -> HeadShape {
    HeadShape { form, channels: 64, patch, width, window: 5 }
}

/// A head with the weights of a fixture.
fn loaded(file: &str, shape: HeadShape) -> (nn::VarStore, Head) {
    let mut weights = tensors(file);
    let store = nn::VarStore::new(Device::Cpu);
    let head = Head::new(&store.root(), shape);
    tch::no_grad(|| {
        for (name, mut tensor) in store.variables() {
            let prefixed = format!("{}.{name}", shape.form.name());
            let value = weights.remove(&name).or_else(|| weights.remove(&prefixed));
            tensor.copy_(&value.unwrap_or_else(|| panic!("{file} holds no {name}")));
        }
    });
    assert!(weights.is_empty(), "the head has no place for {:?}", weights.keys());
    (store, head)
}

#[test]
fn official_heads_compute_what_their_authors_module_computes() {
    for patch in [16, 8] {
        let (_store, head) = loaded(&format!("lift/lift_c64_p{patch}.safetensors"), shape(LiftForm::Official, patch, 0));
        let io = tensors(&format!("lift/lift_c64_p{patch}_io.safetensors"));
        let got = tch::no_grad(|| head.forward(&io["image"], &io["features"], false));
        assert!(error(&got, &io["lift_1"]) <= FP32, "patch {patch}: {}", error(&got, &io["lift_1"]));
    }
}

#[test]
fn our_own_forms_compute_what_their_definition_in_pytorch_computes() {
    for (form, width) in [(LiftForm::Residual, 24), (LiftForm::Guided, 16), (LiftForm::Corrected, 16)] {
        let name = form.name();
        let (_store, head) = loaded(&format!("lift/{name}_c64_p14.safetensors"), shape(form, 14, width));
        let io = tensors(&format!("lift/{name}_c64_p14_io.safetensors"));
        let got = tch::no_grad(|| head.forward(&io["image"], &io["features"], false));
        assert!(error(&got, &io["lift_1"]) <= FP32, "{name}: {}", error(&got, &io["lift_1"]));
    }
}

#[test]
fn products_in_bfloat16_stay_near_those_in_single_precision() {
    for form in LiftForm::ALL {
        tch::manual_seed(4);
        let store = nn::VarStore::new(Device::Cpu);
        let (image, features) =
            (Tensor::randn([2, 3, 42, 70], (Kind::Float, Device::Cpu)), Tensor::randn([2, 64, 3, 5], (Kind::Float, Device::Cpu)));
        let head = Head::new(&store.root(), shape(form, 14, 8));
        let expected = tch::no_grad(|| head.forward(&image, &features, true));
        let got = tch::no_grad(|| head.with_products(Products::Bf16).forward(&image, &features, true));
        // bfloat16 keeps 8 bits, 2^-9 of a value lost in each of seven layers; random errors add up to a few of those.
        assert!(error(&got, &expected) <= 0.03, "{form:?}: {}", error(&got, &expected));
        // Heads of our own forms begin as bilinear upsampling, which no product can change.
        assert_eq!(form == LiftForm::Official, error(&got, &expected) > 1e-6, "{form:?}");
    }
}

#[test]
fn fresh_heads_of_our_own_forms_are_bilinear_upsampling() {
    tch::manual_seed(1);
    let (image, features) =
        (Tensor::randn([2, 3, 42, 70], (Kind::Float, Device::Cpu)), Tensor::randn([2, 64, 3, 5], (Kind::Float, Device::Cpu)));
    let bilinear = features.upsample_bilinear2d([6, 10], false, None, None);
    // The prior of guided and corrected heads gives 25 cells a floor of 1e-3 each: at most 2.4 % of the weight leaves the bilinear ones.
    for (form, tolerance) in [(LiftForm::Residual, 1e-6), (LiftForm::Guided, 0.05), (LiftForm::Corrected, 0.05)] {
        let store = nn::VarStore::new(Device::Cpu);
        let head = Head::new(&store.root(), shape(form, 14, 8));
        let got = tch::no_grad(|| head.forward(&image, &features, true));
        assert!(error(&got, &bilinear) <= tolerance, "{form:?}: {}", error(&got, &bilinear));
    }
}

#[test]
fn gradients_are_those_of_finite_differences() {
    for form in LiftForm::ALL {
        tch::manual_seed(2);
        let mut store = nn::VarStore::new(Device::Cpu);
        let head = Head::new(&store.root(), HeadShape { form, channels: 8, patch: 8, width: 6, window: 3 });
        store.double();
        let random = |size: &[i64]| Tensor::randn(size, (Kind::Double, Device::Cpu));
        // Away from the zeros of the last layer, where half of the gradients vanish.
        tch::no_grad(|| {
            store.variables().into_values().filter(Tensor::requires_grad).for_each(|mut weight| {
                let _moved = weight.g_add_(&(random(&weight.size()) * 0.1));
            })
        });
        let (image, features, target) = (random(&[2, 3, 24, 16]), random(&[2, 8, 3, 2]), random(&[2, 8, 6, 4]));
        let loss = || cosine_distance(&head.forward(&image, &features, true), &target);
        loss().backward();
        for (name, weight) in store.variables().into_iter().filter(|(_, tensor)| tensor.requires_grad()) {
            let (flat, gradient) = (weight.view([-1]), weight.grad().view([-1]));
            let idx = i64::try_from(name.len()).unwrap() * 7 % flat.size()[0];
            let step = 1e-6;
            let at = |offset: f64| {
                tch::no_grad(|| {
                    let mut entry = flat.get(idx);
                    let _moved = entry.g_add_scalar_(offset);
                    loss().double_value(&[])
                })
            };
            let numeric = (at(step) - at(-2.0 * step)) / (2.0 * step);
            at(step);
            let analytic = gradient.double_value(&[idx]);
            // Second-order error of the difference is about step^2; rounding of the loss about 1e-16 / step.
            assert!(
                (numeric - analytic).abs() <= 1e-7 + 1e-4 * analytic.abs(),
                "{form:?} {name}[{idx}]: {analytic}, numerically {numeric}"
            );
        }
    }
}
