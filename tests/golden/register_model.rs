//! The committed backbone with registers, which `train pretrain` made: against timm, and as `make setup` has it served.

use densevit::{
    grpc::{client::ClientError, pb::v1 as pb},
    manifest::{Facet, ModelEntry, PositionVariant, Tap, load_dir},
    norms,
    tensor::RgbImage,
};
use tonic::Code;

use crate::support::{fixture, image, root, run, runner, tensors, with_client};

const NAME: &str = "vit-ti16-selfpatch-reg4";
const DEPTH: u32 = 12;
const PHOTO: &str = "dinov2_vits14/astronaut_224x224.png";

/// What `make setup` imported.
fn register_model() -> ModelEntry {
    load_dir(&root().join("models").join(NAME).join("1")).expect("run `make setup` first")
}

/// The part of the photo that the reference has: 6 rows and 10 columns of patches, where the position table has 6 of each.
fn part() -> RgbImage {
    let photo = image::open(fixture(PHOTO)).unwrap().into_rgb8();
    let part = image::imageops::crop_imm(&photo, 32, 16, 160, 96).to_image();
    RgbImage::new(part.height(), part.width(), part.into_raw()).unwrap()
}

#[test]
fn patches_and_registers_are_those_that_timm_computes() {
    let entry = register_model();
    let arch = &entry.manifest.architecture;
    assert_eq!((arch.width, arch.depth, arch.heads, arch.registers), (192, DEPTH, 3, 4));
    assert_eq!((arch.has_cls(), entry.manifest.position.variant), (false, PositionVariant::Antialias));
    let golden = tensors("register_model.safetensors");
    let [token, key] = [Facet::Token, Facet::Key].map(|facet| Tap { facet, layer: DEPTH - 1 });
    let mut runner = runner(&entry);
    let [tokens, keys] = [token, key].map(|tap| run(&mut runner, &part(), tap, true));
    golden["token"].assert_close(tokens.map.data(), "tokens");
    golden["registers"].assert_close(&tokens.registers.unwrap(), "registers");
    golden["key"].assert_close(keys.map.data(), "keys");
}

#[test]
fn no_patch_of_a_photo_is_an_outlier_after_any_block() {
    let (photo, mut runner) = (image(PHOTO), runner(&register_model()));
    for layer in 0..DEPTH {
        let output = run(&mut runner, &photo, Tap { facet: Facet::Token, layer }, false);
        let length = |cell: &[f32]| cell.iter().map(|value| value * value).sum::<f32>().sqrt();
        let lengths: Vec<f32> = output.map.data().chunks(192).map(length).collect();
        assert_eq!(lengths.len(), 14 * 14);
        assert!(norms::find(&lengths).is_none(), "block {layer}: {lengths:?}");
    }
}

#[tokio::test]
async fn a_server_offers_it_beside_the_default_model() {
    let encoded = std::fs::read(root().join("third_party/photos/chelsea.png")).unwrap();
    let asked = |features| pb::ExtractRequest {
        model: Some(pb::ModelRef { name: NAME.to_owned(), ..Default::default() }),
        image: Some(pb::Image { source: Some(pb::image::Source::Encoded(encoded.clone().into())) }),
        features: Some(features),
        ..Default::default()
    };
    let registers = asked(pb::FeatureOptions { register_tokens: true, ..Default::default() });
    let cls = asked(pb::FeatureOptions { cls_token: true, ..Default::default() });
    let (served, refused) =
        with_client(|client| async move { (client.extract(registers).await, client.extract(cls).await) }).await;
    let served = served.unwrap().header;
    assert_eq!((served.model.as_str(), served.facet(), served.layer), (NAME, pb::Facet::Token, DEPTH - 1));
    // 300 x 451 px at a shorter side of 224 px.
    assert_eq!((served.rows, served.cols, served.channels), (14, 21, 192));
    assert_eq!(served.register_tokens.len(), 4 * 192 * 4);
    let Err(ClientError::Status(refused)) = refused else { panic!("{refused:?}") };
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("features.cls_token"), "{refused}");
}
