//! What SelfPatch adds to a backbone, against the authors' released modules.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor, nn};
use train::{
    checkpoint,
    pretrain::{
        aggregation::{Aggregated, Aggregation},
        loss::{Centre, PatchTerm, image_loss, log_probabilities, patch_loss},
        neighbours::{Around, Border},
        projection::{Projection, ProjectionShape},
    },
};

use crate::support::{error, fixture, tensors};

/// Single precision on both sides, in different orders, over two blocks of attention.
const FP32: f64 = 1e-4;

const IO: &str = "selfpatch/selfpatch_c32_io.safetensors";

/// Gives every tensor of a store the value of its name in a fixture.
fn load(store: &nn::VarStore, file: &str) {
    let weights = tensors(file);
    assert_eq!(weights.len(), store.variables().len());
    assert_eq!(checkpoint::assign(store.variables(), |name| weights.get(name)), None);
}

fn integers(file: &str, name: &str) -> Vec<i64> {
    let bytes = std::fs::read(fixture(file)).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    file.tensor(name).unwrap().data().chunks_exact(8).map(|value| i64::from_le_bytes(value.try_into().unwrap())).collect()
}

fn around(side: i64) -> Around {
    Around::new([side; 2], Border::Wrap, Device::Cpu)
}

#[test]
fn student_and_teacher_aggregate_as_the_authors_do() {
    let store = nn::VarStore::new(Device::Cpu);
    let head = Aggregation::new(&store.root(), 32, 2);
    load(&store, "selfpatch/selfpatch_head_c32.safetensors");
    let io = tensors(IO);
    for (n, side) in [(36, 6), (196, 14)] {
        let tokens = &io[&format!("tokens_{n}")];
        let chosen = around(side).choose(tokens, 4);
        for (role, chosen) in [("student", None), ("teacher", Some(&chosen))] {
            let Aggregated { image, patches } = tch::no_grad(|| head.forward(tokens, chosen));
            let got = Tensor::cat(&[image.unsqueeze(1), patches], 1);
            let error = error(&got, &io[&format!("{role}_{n}")]);
            assert!(error <= FP32, "{role} of {n} patches: {error}");
        }
    }
}

#[test]
fn neighbours_are_those_of_the_authors() {
    for (n, side) in [(36, 6), (196, 14)] {
        let around = around(side);
        assert_eq!(Vec::<i64>::try_from(around.indices.view([-1])).unwrap(), integers(IO, &format!("neighbours_{n}")));
        assert!(around.is_there.all().int64_value(&[]) == 1);
    }
}

#[test]
fn missing_neighbours_say_nothing() {
    tch::manual_seed(4);
    let store = nn::VarStore::new(Device::Cpu);
    let head = Aggregation::new(&store.root(), 32, 2);
    load(&store, "selfpatch/selfpatch_head_c32.safetensors");
    let tokens = Tensor::randn([1, 12, 32], (Kind::Float, Device::Cpu));
    let of = |tokens: &Tensor, grid, k| {
        let chosen = Around::new(grid, Border::Valid, Device::Cpu).choose(tokens, k);
        tch::no_grad(|| head.forward(tokens, Some(&chosen))).patches
    };
    // The corner of a 3 x 4 grid has three neighbours, whatever more is asked for.
    let corner = |k| of(&tokens, [3, 4], k).select(1, 0);
    assert!(error(&corner(8), &corner(3)) <= 1e-6 && error(&corner(2), &corner(3)) > 1e-3);
    // The same three, as the whole of an image whose query looks at all of it.
    let three = tokens.index_select(1, &Tensor::from_slice(&[1i64, 4, 5]));
    let whole = tch::no_grad(|| head.forward(&three, None)).image;
    assert!(error(&corner(8), &whole) <= FP32);
    // A single patch has none: the query finds itself alone.
    let alone = of(&tokens.narrow(1, 0, 1), [1, 1], 4);
    assert!(alone.isfinite().all().int64_value(&[]) == 1);
    assert!(error(&of(&tokens.narrow(1, 5, 1), [1, 1], 4), &alone) <= 1e-6);
}

#[test]
fn the_projection_head_gives_what_the_authors_head_gives() {
    let store = nn::VarStore::new(Device::Cpu);
    let shape = ProjectionShape { channels: 32, hidden: 40, bottleneck: 20, prototypes: 48, norm_last_layer: true };
    let head = Projection::new(&store.root(), shape);
    assert!(!store.variables()["last_layer.weight_g"].requires_grad());
    load(&store, "selfpatch/projection_head_c32.safetensors");
    let io = tensors(IO);
    assert!(error(&head.forward(&io["proj_in"]), &io["proj_out"]) <= FP32);
}

/// A centre with a value.
fn centre(store: &nn::VarStore, name: &str, value: &Tensor) -> Centre {
    let n = i64::try_from(value.numel()).unwrap();
    let centre = Centre::new(&store.root(), name, n, 0.9);
    tch::no_grad(|| store.variables().get_mut(name).unwrap().copy_(&value.view([-1])));
    centre
}

/// The loss of the case in the fixture, and both centres after it.
fn case(io: &BTreeMap<String, Tensor>) -> ([f64; 2], [Tensor; 2]) {
    let store = nn::VarStore::new(Device::Cpu);
    let mut image = centre(&store, "image", &io["center_before"]);
    let mut patch = centre(&store, "patch", &io["patch_center_before"]);
    // Two global and three local crops of two photos.
    let by_crop = |name: &str, n_crops: i64| io[name].view([n_crops, 2, 48]);
    let student = Tensor::cat(&[by_crop("student_cls_global", 2), by_crop("student_cls_local", 3)], 0);
    let teacher = image.probabilities(&by_crop("teacher_cls_global", 2), 0.04);
    let of_images = image_loss(&teacher, &log_probabilities(&student, 0.1));
    let term = |size: &str, n_crops| PatchTerm {
        teacher: patch.probabilities(&io[&format!("teacher_patch_{size}")], 0.04),
        student: log_probabilities(&io[&format!("student_patch_{size}")], 0.1),
        n_crops,
    };
    let of_patches = patch_loss(&[term("global", 2), term("local", 3)]);
    image.update(&[&io["teacher_cls_global"], &io["teacher_cls_local"]]);
    patch.update(&[&io["teacher_patch_global"], &io["teacher_patch_local"]]);
    ([of_images, of_patches].map(|loss| loss.double_value(&[])), [image.value().copy(), patch.value().copy()])
}

#[test]
fn losses_and_centres_are_those_of_the_authors() {
    let io = tensors(IO);
    let ([image, patch], centres) = case(&io);
    let expected = |name: &str| io[name].double_value(&[0]);
    for (got, name) in [(image, "loss_cls"), (patch, "loss_patch"), (image + 0.1 * patch, "loss_total")] {
        assert!((got / expected(name) - 1.0).abs() <= FP32, "{name}: {got}, expected {}", expected(name));
    }
    for (got, name) in centres.iter().zip(["center_after", "patch_center_after"]) {
        assert!(error(got, &io[name].view([-1])) <= FP32, "{name}");
    }
}
