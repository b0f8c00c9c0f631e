//! From images to served answers: `train lift` and `train segvit` put a head into the model directory, gRPC serves it.

use std::process::Command;

use bytes::Bytes;
use densevit::{
    config::ServeConfig,
    grpc::{client::Client, pb::v1 as pb},
    import::HeadOptions,
    manifest::{LiftForm, Tap, load_dir},
    server::Server,
    tensor::RgbImage,
};
use tch::{Device, Tensor};
use train::{
    backbone::Backbone,
    eval::to_tensor,
    head,
    segmentation::{
        features::{Model, Reading},
        segmenter::inferred,
    },
};

use crate::support::{self, error, photos, street, tiny_model};

/// Single precision on both sides, in different orders, over the head's convolutions.
const FP32: f64 = 1e-4;
/// Scores are answered in half precision: half a step of its 11 bits.
const FP16: f64 = 5e-4 + FP32;

fn image() -> RgbImage {
    RgbImage::new(48, 80, (0..48 * 80 * 3).map(|idx| u8::try_from(idx * 7 % 251).unwrap()).collect()).unwrap()
}

/// What the trained head makes of the image in the training framework, `[rows, cols, C]`.
fn expected(dir: &std::path::Path, tap: Tap, head: &std::path::Path) -> Tensor {
    let mut backbone = Backbone::open(dir, |_default| tap, Device::Cpu).unwrap();
    let features = to_tensor(&backbone.features(&image()).unwrap());
    let pixels = backbone.normalisation().of(&image());
    let (module, _shape) = head::open(head, 64, 16).unwrap();
    tch::no_grad(|| module.forward(&pixels, &features, false).permute([0, 2, 3, 1]).squeeze_dim(0))
}

pub async fn start(models: &std::path::Path) -> (Server, Client) {
    let settings = [("grpc.listen", "127.0.0.1:0"), ("admin.enabled", "false"), ("models.dir", models.to_str().unwrap())];
    let settings: Vec<(String, String)> = settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let server = Server::start(ServeConfig::load(None, &settings).unwrap()).await.unwrap();
    let client = Client::connect(&server.address().to_string()).await.unwrap();
    (server, client)
}

pub fn native() -> pb::Preprocess {
    pb::Preprocess { resize: Some(pb::preprocess::Resize::Native(true)), ..Default::default() }
}

async fn served(models: &std::path::Path) -> pb::ExtractResponse {
    let (server, client) = start(models).await;
    let raw = pb::RawImage { height: 48, width: 80, data: Bytes::from(image().into_data()) };
    let request = pb::ExtractRequest {
        image: Some(pb::Image { source: Some(pb::image::Source::Raw(raw)) }),
        preprocess: Some(native()),
        ..Default::default()
    };
    let features = client.extract_whole(request).await.unwrap();
    server.run(async {}).await;
    pb::ExtractResponse { header: Some(features.header), data: features.data }
}

#[test]
fn a_head_trained_on_twelve_photos_is_served_as_it_was_trained() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let entry = tiny_model(&at("models"));
    let images = photos(12);
    std::fs::write(images.path().join("broken.jpg"), b"no photo").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_train"))
        .current_dir(format!("{}/../..", env!("CARGO_MANIFEST_DIR")))
        .args("lift --license test --steps 8 --batch 2 --size 128 --width 8 --window 3 --validation 0.4".split(' '))
        .args(["--model".as_ref(), entry.dir.as_os_str(), "--images".as_ref(), images.path().as_os_str()])
        .args(["--out".as_ref(), at("run").as_os_str(), "--cache".as_ref(), at("cache").as_os_str()])
        .output()
        .unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}{stderr}");
    assert!(stderr.contains("broken.jpg is skipped") && stdout.contains("wrote "), "{stdout}{stderr}");

    let head = at("run").join("lift.safetensors");
    let tap = entry.manifest.backbone.default;
    let lift = load_dir(&entry.dir).unwrap().manifest.lift.unwrap();
    assert_eq!((lift.form, lift.window, lift.tap, lift.license.as_str()), (LiftForm::Guided, Some(3), tap, "test"));
    let grids: Vec<u32> = lift.scores.iter().map(|score| score.grid).collect();
    assert!(
        grids == [4, 2, 1] && lift.scores.iter().all(|score| score.distance > 0.0 && score.bilinear > 0.0),
        "{:?}",
        lift.scores
    );
    let expected = expected(&entry.dir, tap, &head);
    let answer = tokio::runtime::Runtime::new().unwrap().block_on(served(&at("models")));
    let header = answer.header.unwrap();
    assert_eq!((header.rows, header.cols, header.lift_passes), (6, 10, 1));
    let values: Vec<f32> = answer.data.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect();
    let got = Tensor::from_slice(&values).view([6, 10, 64]);
    assert!(error(&got, &expected) <= FP32, "{}", error(&got, &expected));

    // The file says what it belongs to: another backbone and another activation refuse it, and the model keeps what it has.
    let other = support::other_model(&at("models"));
    let refused =
        |options: &HeadOptions, dir| densevit::import::install_head(dir, options, |_entry| Ok(())).unwrap_err().to_string();
    let mut options = HeadOptions::new(head);
    assert!(refused(&options, &other.dir).contains("SHA-256"), "{}", refused(&options, &other.dir));
    options.tap = Some(Tap { layer: 0, ..tap });
    assert!(refused(&options, &entry.dir).contains("was trained on the"), "{}", refused(&options, &entry.dir));
    assert_eq!(load_dir(&entry.dir).unwrap().manifest.lift.unwrap(), lift);
}

/// What the server says of a file: scores on the head's own raster, `[rows, cols, K]`.
async fn served_scores(models: &std::path::Path, photo: Vec<u8>) -> (pb::SegmentHeader, Tensor) {
    let (server, client) = start(models).await;
    let request = pb::SegmentRequest {
        image: Some(pb::Image { source: Some(pb::image::Source::Encoded(photo.into())) }),
        preprocess: Some(native()),
        masks: Some(pb::SegmentOptions {
            format: pb::MaskFormat::Scores.into(),
            size: pb::MaskSize::Scores.into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let answer = client.segment(request).await.unwrap();
    server.run(async {}).await;
    let values: Vec<half::f16> =
        answer.data.chunks_exact(2).map(|bytes| half::f16::from_le_bytes(bytes.try_into().unwrap())).collect();
    let shape = [answer.header.rows.into(), answer.header.cols.into(), -1];
    (answer.header, Tensor::from_slice(&values).to_kind(tch::Kind::Float).view(shape))
}

#[test]
fn a_segmentation_head_is_served_as_it_was_trained() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (entry, data) = (tiny_model(&at("models")), street(4));
    let output = Command::new(env!("CARGO_BIN_EXE_train"))
        .current_dir(format!("{}/../..", env!("CARGO_MANIFEST_DIR")))
        .args("segvit --license test --steps 4 --batch 2 --size 64,96 --taps 1,0 --width 32 --heads 2".split(' '))
        .args(["--model".as_ref(), entry.dir.as_os_str(), "--data".as_ref(), data.path().as_os_str()])
        .args(["--out".as_ref(), at("run").as_os_str(), "--cache".as_ref(), at("cache").as_os_str()])
        .output()
        .unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && stdout.contains("of the largest score"), "{stdout}{stderr}");

    let manifest = load_dir(&entry.dir).unwrap().manifest;
    let segmenter = manifest.segmenter.unwrap();
    assert_eq!((segmenter.license.as_str(), segmenter.size, segmenter.scores.miou.is_some()), ("test", Some([64, 96]), true));

    let photo = data.path().join("images/test/200.png");
    let pixels = image::open(&photo).unwrap().into_rgb8();
    let pixels = RgbImage::new(64, 96, pixels.into_raw()).unwrap();
    let opened = train::segmentation::head::open(&at("run/segment.safetensors"), 64, Device::Cpu).unwrap();
    let reading = Reading { taps: opened.card.taps, input: opened.card.input, downsample: None, drop_path: 0.0 };
    let maps = Model::open(&entry.dir).unwrap().served(reading, Device::Cpu).unwrap().maps(&pixels).unwrap();
    let expected = inferred(&opened.head, &maps).scores([16, 24]).permute([0, 2, 3, 1]).squeeze_dim(0);
    let (header, got) =
        tokio::runtime::Runtime::new().unwrap().block_on(served_scores(&at("models"), std::fs::read(&photo).unwrap()));
    assert_eq!((header.rows, header.cols), (16, 24));
    let names: Vec<&str> = header.classes.iter().map(|class| class.name.as_str()).collect();
    assert_eq!(names, ["sky", "road", "car"]);
    assert!(error(&got, &expected) <= FP16, "{}", error(&got, &expected));
}

#[test]
fn photos_that_are_all_broken_are_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let entry = tiny_model(&folder.path().join("models"));
    let images = folder.path().join("images");
    std::fs::create_dir(&images).unwrap();
    (0..12).for_each(|idx| std::fs::write(images.join(format!("{idx}.jpg")), format!("no photo {idx}")).unwrap());
    let output = Command::new(env!("CARGO_BIN_EXE_train"))
        .current_dir(format!("{}/../..", env!("CARGO_MANIFEST_DIR")))
        .args(["lift", "--size", "64", "--scales", "2", "--validation", "0.4", "--model"])
        .args([entry.dir.as_os_str(), "--images".as_ref(), images.as_os_str()])
        .args([
            "--out".as_ref(),
            folder.path().join("run").as_os_str(),
            "--cache".as_ref(),
            folder.path().join("cache").as_os_str(),
        ])
        .output()
        .unwrap();
    assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("photos can be used"));
}
