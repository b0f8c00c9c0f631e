//! Whatever changes an answer changes the question.

#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::engine::ModelSelector;

const MODEL: (&str, u32, &str) = ("tiny", 1, "ab");

fn file(bytes: &'static [u8]) -> ImageSource {
    ImageSource::Encoded(Bytes::from_static(bytes))
}

fn features() -> FeatureRequest {
    FeatureRequest {
        facet: None,
        layer: None,
        lift_passes: None,
        dtype: DType::F32,
        layout: Layout::Hwc,
        l2_normalize: false,
        part: Part::All,
        cls_token: false,
        register_tokens: false,
    }
}

fn input() -> InputRequest {
    InputRequest { model: ModelSelector::default(), image: file(b"abcdef"), resize: None, interpolation: None, crop: None }
}

fn rect(x: f64) -> Rect {
    Rect { x, y: 0.0, width: 2.0, height: 3.0 }
}

/// One change each of every field of the input, and of every alternative of each.
fn inputs() -> Vec<InputRequest> {
    let raw = |height, width| ImageSource::Raw { height, width, data: Bytes::from_static(b"abcdef") };
    let resized = |resize| InputRequest { resize: Some(resize), ..input() };
    let by = |interpolation| InputRequest { interpolation: Some(interpolation), ..input() };
    vec![
        input(),
        InputRequest { image: file(b"abcdeg"), ..input() },
        InputRequest { image: file(b"abcde"), ..input() },
        InputRequest { image: raw(1, 2), ..input() },
        InputRequest { image: raw(2, 1), ..input() },
        resized(ResizePolicy::Exact { height: 32, width: 48 }),
        resized(ResizePolicy::Exact { height: 48, width: 32 }),
        resized(ResizePolicy::Letterbox { height: 32, width: 48 }),
        resized(ResizePolicy::ShortSide { pixels: 32 }),
        resized(ResizePolicy::ShortSide { pixels: 48 }),
        resized(ResizePolicy::Native),
        by(Interpolation::Nearest),
        by(Interpolation::Bilinear),
        by(Interpolation::Bicubic),
        by(Interpolation::Lanczos),
        InputRequest { crop: Some(rect(0.0)), ..input() },
        InputRequest { crop: Some(rect(1.0)), ..input() },
    ]
}

/// The same of the features.
fn feature_requests() -> Vec<FeatureRequest> {
    let of = |facet| FeatureRequest { facet: Some(facet), ..features() };
    vec![
        features(),
        of(Facet::Key),
        of(Facet::Query),
        of(Facet::Value),
        of(Facet::Token),
        of(Facet::NormToken),
        FeatureRequest { layer: Some(0), ..features() },
        FeatureRequest { layer: Some(1), ..features() },
        FeatureRequest { lift_passes: Some(0), ..features() },
        FeatureRequest { lift_passes: Some(1), ..features() },
        FeatureRequest { dtype: DType::F16, ..features() },
        FeatureRequest { dtype: DType::I8, ..features() },
        FeatureRequest { layout: Layout::Chw, ..features() },
        FeatureRequest { l2_normalize: true, ..features() },
        FeatureRequest { part: Part::Region(rect(0.0)), ..features() },
        FeatureRequest { part: Part::Region(rect(1.0)), ..features() },
        FeatureRequest { part: Part::Points(vec![]), ..features() },
        FeatureRequest { part: Part::Points(vec![[0.0, 1.0]]), ..features() },
        FeatureRequest { part: Part::Points(vec![[1.0, 0.0]]), ..features() },
        FeatureRequest { part: Part::Points(vec![[0.0, 1.0], [0.0, 1.0]]), ..features() },
        FeatureRequest { cls_token: true, ..features() },
        FeatureRequest { register_tokens: true, ..features() },
    ]
}

/// The same of the masks.
fn mask_requests() -> Vec<MaskRequest> {
    let masks = MaskRequest::default;
    let formatted = |format| MaskRequest { format, ..masks() };
    let in_windows = |windows| MaskRequest { windows, ..masks() };
    let tiles = |size, stride| in_windows(WindowRequest::Tiles { size, stride });
    vec![
        masks(),
        formatted(MaskFormat::Scores),
        formatted(MaskFormat::Bits),
        formatted(MaskFormat::Rle),
        formatted(MaskFormat::Polygons),
        formatted(MaskFormat::Png),
        formatted(MaskFormat::Nothing),
        MaskRequest { size: MaskSize::Scores, ..masks() },
        MaskRequest { region: Some(rect(0.0)), ..masks() },
        MaskRequest { classes: vec!["sky".into()], ..masks() },
        MaskRequest { classes: vec!["s".into(), "ky".into()], ..masks() },
        MaskRequest { class_indices: vec![0], ..masks() },
        MaskRequest { class_indices: vec![0, 0], ..masks() },
        MaskRequest { min_score: 0.5, ..masks() },
        MaskRequest { threshold: Some(0.5), ..masks() },
        MaskRequest { tolerance: 0.5, ..masks() },
        MaskRequest { keep_empty: true, ..masks() },
        in_windows(WindowRequest::Whole),
        tiles(None, None),
        tiles(Some([32, 48]), None),
        tiles(None, Some([32, 48])),
        MaskRequest { with_scores: true, ..masks() },
    ]
}

#[test]
fn every_option_and_every_alternative_is_a_question_of_its_own() {
    let extract = |input, features| question_of(&ExtractRequest { input, features }, MODEL, None);
    let segment = |input, masks, features| question_of(&SegmentRequest { input, masks, features }, MODEL, None);
    let mut questions: Vec<Question> = inputs().into_iter().map(|input| extract(input, features())).collect();
    questions.extend(feature_requests().into_iter().skip(1).map(|features| extract(input(), features)));
    questions.extend(inputs().into_iter().map(|input| segment(input, MaskRequest::default(), None)));
    questions.extend(mask_requests().into_iter().skip(1).map(|masks| segment(input(), masks, None)));
    questions.extend(feature_requests().into_iter().map(|features| segment(input(), MaskRequest::default(), Some(features))));
    let plain = ExtractRequest { input: input(), features: features() };
    let models = [("tina", 1, "ab"), ("tiny", 2, "ab"), ("tiny", 1, "cd")];
    questions.extend(models.map(|model| question_of(&plain, model, None)));
    let tenants = ["a", "b"].map(|name| name.parse().unwrap());
    questions.extend(tenants.map(|tenant| question_of(&plain, MODEL, Some(tenant))));
    for (idx, question) in questions.iter().enumerate() {
        let same = questions.iter().skip(idx + 1).position(|other| other == question);
        assert_eq!(same, None, "question {idx} is asked twice");
    }
}

#[test]
fn what_does_not_change_the_answer_changes_no_question() {
    let ask = |model: &str, version: &str| {
        let model = ModelSelector { name: model.into(), version: version.into() };
        question_of(&ExtractRequest { input: InputRequest { model, ..input() }, features: features() }, MODEL, None)
    };
    assert_eq!(ask("", ""), ask("tiny", "1"), "however the model was named");
}
