//! Valid messages of the methods that take one, and how each is spoilt: as a whole, or only the image inside.

use std::io::Cursor;

use anyhow::Context as _;
use bytes::Bytes;
use densevit::grpc::{
    client::{Call, Client, Method},
    pb::{inference as kserve, v1 as pb},
};
use image::{ImageFormat, RgbImage};
use prost::Message as _;

use crate::mutation::Mutator;

/// Side of the images, in pixels: two patches, so that a run costs little.
const SIDE: u32 = 32;
/// Formats of files that the server reads.
const FORMATS: [ImageFormat; 6] =
    [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::WebP, ImageFormat::Bmp, ImageFormat::Tiff, ImageFormat::Gif];

/// Makes a message around a file.
type Around = fn(Bytes) -> Vec<u8>;

/// A valid message.
pub struct Seed {
    pub name: &'static str,
    pub call: Call,
    pub message: Bytes,
    /// The message around a file, where the file can be spoilt alone.
    file: Option<(Vec<u8>, Around)>,
}

impl Seed {
    /// A spoilt message: half of the time only its file, if it has one.
    pub fn mutated(&self, mutator: &mut Mutator, other: &Self) -> Bytes {
        if let Some((file, around)) = self.file.as_ref().filter(|_| mutator.chance(50)) {
            let mut file = file.clone();
            mutator.change(&mut file, &other.message);
            return around(file.into()).into();
        }
        let mut message = self.message.to_vec();
        mutator.change(&mut message, &other.message);
        message.into()
    }
}

/// All seeds.
///
/// # Errors
/// When a method is gone or an image cannot be written.
pub fn all(client: &Client) -> anyhow::Result<Vec<Seed>> {
    let call = |name: &str| anyhow::Ok(client.call(&Method::find_any(name)?));
    let mut seeds = Vec::new();
    for format in FORMATS {
        let file = file(format)?;
        let with_file: [(&str, &str, Around); 7] = [
            ("extract", "densevit.v1.DenseVision.Extract", extract),
            ("extract-chunked", "densevit.v1.DenseVision.ExtractChunked", extract_points),
            ("segment", "densevit.v1.DenseVision.Segment", segment),
            ("discover", "densevit.v1.DenseVision.Discover", discover),
            ("match", "densevit.v1.DenseVision.Match", match_points),
            ("propagate", "densevit.v1.DenseVision.Propagate", propagate),
            ("infer", "inference.GRPCInferenceService.ModelInfer", infer),
        ];
        for (name, method, around) in with_file {
            let message = around(file.clone().into()).into();
            seeds.push(Seed { name, call: call(method)?, message, file: Some((file.clone(), around)) });
        }
    }
    let labels = labels()?;
    let around: Around = propagate_labels;
    let message = around(labels.clone().into()).into();
    seeds.push(Seed {
        name: "propagate-labels",
        call: call("densevit.v1.DenseVision.Propagate")?,
        message,
        file: Some((labels, around)),
    });
    for (name, method, message) in [
        ("extract-raw", "densevit.v1.DenseVision.Extract", raw()),
        ("infer-pixels", "inference.GRPCInferenceService.ModelInfer", infer_pixels()),
        ("get-model", "densevit.v1.DenseVision.GetModel", pb::GetModelRequest { model: Some(model()) }.encode_to_vec()),
        ("metadata", "inference.GRPCInferenceService.ModelMetadata", metadata()),
    ] {
        seeds.push(Seed { name, call: call(method)?, message: message.into(), file: None });
    }
    Ok(seeds)
}

fn model() -> pb::ModelRef {
    pb::ModelRef { name: "tiny".into(), ..Default::default() }
}

fn file(format: ImageFormat) -> anyhow::Result<Vec<u8>> {
    let image = RgbImage::from_fn(SIDE, SIDE, |x, y| image::Rgb([(8 * x) as u8, (8 * y) as u8, ((x * y) % 256) as u8]));
    let mut file = Cursor::new(Vec::new());
    image.write_to(&mut file, format).with_context(|| format!("writing {format:?}"))?;
    Ok(file.into_inner())
}

fn encoded(file: Bytes) -> Option<pb::Image> {
    Some(pb::Image { source: Some(pb::image::Source::Encoded(file)) })
}

fn native() -> Option<pb::Preprocess> {
    Some(pb::Preprocess { resize: Some(pb::preprocess::Resize::Native(true)), ..Default::default() })
}

fn extract(file: Bytes) -> Vec<u8> {
    let features = pb::FeatureOptions { lift_passes: Some(1), ..Default::default() };
    let request =
        pb::ExtractRequest { image: encoded(file), model: Some(model()), preprocess: native(), features: Some(features) };
    request.encode_to_vec()
}

fn extract_points(file: Bytes) -> Vec<u8> {
    let features = pb::FeatureOptions { dtype: pb::DType::DtypeI8 as i32, ..Default::default() };
    let request =
        pb::ExtractRequest { image: encoded(file), preprocess: native(), features: Some(features), ..Default::default() };
    request.encode_to_vec()
}

fn segment(file: Bytes) -> Vec<u8> {
    pb::SegmentRequest { image: encoded(file), preprocess: native(), ..Default::default() }.encode_to_vec()
}

fn discover(file: Bytes) -> Vec<u8> {
    let (image, cells) = (encoded(file), pb::MaskFormat::Rle.into());
    pb::DiscoverRequest { image, preprocess: native(), n_objects: 2, cells, ..Default::default() }.encode_to_vec()
}

fn match_points(file: Bytes) -> Vec<u8> {
    let (source, target) = (encoded(file.clone()), encoded(file));
    let points = vec![pb::Point { x: 8.0, y: 8.0 }, pb::Point { x: 30.0, y: 5.0 }];
    pb::MatchRequest { source, target, preprocess: native(), points, ..Default::default() }.encode_to_vec()
}

/// The first message of a video, which is answered before the second comes.
fn propagate(file: Bytes) -> Vec<u8> {
    let raw = vec![1; (SIDE * SIDE) as usize].into();
    started(encoded(file), pb::LabelMap { raw, ..Default::default() })
}

fn propagate_labels(png: Bytes) -> Vec<u8> {
    started(raw_image(), pb::LabelMap { png, ..Default::default() })
}

fn started(frame: Option<pb::Image>, labels: pb::LabelMap) -> Vec<u8> {
    let format = pb::MaskFormat::Rle.into();
    let start = pb::PropagateStart { frame, labels: Some(labels), preprocess: native(), format, ..Default::default() };
    pb::PropagateRequest { part: Some(pb::propagate_request::Part::Start(start)) }.encode_to_vec()
}

/// Four labels of an image, as a grey PNG file.
fn labels() -> anyhow::Result<Vec<u8>> {
    let labels = image::GrayImage::from_fn(SIDE, SIDE, |x, y| image::Luma([((x / 8 + y / 8) % 4) as u8]));
    let mut file = Cursor::new(Vec::new());
    labels.write_to(&mut file, ImageFormat::Png).context("writing labels")?;
    Ok(file.into_inner())
}

fn raw_image() -> Option<pb::Image> {
    let raw = pb::RawImage { height: SIDE, width: SIDE, data: vec![9; (SIDE * SIDE * 3) as usize].into() };
    Some(pb::Image { source: Some(pb::image::Source::Raw(raw)) })
}

fn raw() -> Vec<u8> {
    pb::ExtractRequest { image: raw_image(), preprocess: native(), ..Default::default() }.encode_to_vec()
}

fn tensor(name: &str, datatype: &str, shape: Vec<i64>, contents: Bytes) -> Vec<u8> {
    let input = kserve::model_infer_request::InferInputTensor {
        name: name.into(),
        datatype: datatype.into(),
        shape,
        ..Default::default()
    };
    let native = kserve::infer_parameter::ParameterChoice::StringParam("native".into());
    let native = kserve::InferParameter { parameter_choice: Some(native) };
    let request = kserve::ModelInferRequest {
        model_name: "tiny".into(),
        parameters: [("resize".to_owned(), native)].into(),
        inputs: vec![input],
        raw_input_contents: vec![contents],
        ..Default::default()
    };
    request.encode_to_vec()
}

fn infer(file: Bytes) -> Vec<u8> {
    let length = u32::try_from(file.len()).unwrap_or(u32::MAX).to_le_bytes();
    tensor("image", "BYTES", vec![1, 1], [&length[..], &file].concat().into())
}

fn infer_pixels() -> Vec<u8> {
    let side = i64::from(SIDE);
    tensor("pixels", "UINT8", vec![1, side, side, 3], vec![9; (SIDE * SIDE * 3) as usize].into())
}

fn metadata() -> Vec<u8> {
    kserve::ModelMetadataRequest { name: "tiny".into(), ..Default::default() }.encode_to_vec()
}
