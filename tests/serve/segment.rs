//! `Segment`, `SegmentChunked`, `SegmentStream`.

use std::collections::HashMap;

use densevit::grpc::pb::v1::{self as pb, extract_chunk, segment_chunk::Part, segment_stream_response::Result as Answer};
use densevit::masks::Rle;
use half::f16;
use tokio_stream::{StreamExt as _, iter};
use tonic::Code;

use crate::support::{TestServer, client, encoded, features, jpeg, png, request, server};

/// Classes of the tiny model's head.
const N_CLASSES: usize = 7;

fn message(height: u32, width: u32, masks: pb::SegmentOptions) -> pb::SegmentRequest {
    let native = pb::Preprocess { resize: Some(pb::preprocess::Resize::Native(true)), ..Default::default() };
    pb::SegmentRequest {
        image: Some(encoded(png(height, width))),
        preprocess: Some(native),
        masks: Some(masks),
        ..Default::default()
    }
}

fn options(format: pb::MaskFormat) -> pb::SegmentOptions {
    pb::SegmentOptions { format: format as i32, ..Default::default() }
}

async fn segment(server: &TestServer, message: pb::SegmentRequest) -> (pb::SegmentHeader, pb::SegmentResponse) {
    let mut answer = client(server).await.segment(message).await.unwrap().into_inner();
    (answer.header.take().unwrap(), answer)
}

#[tokio::test]
async fn labels_are_the_classes_with_the_highest_scores() {
    let server = server().await;
    // 50 x 70 pixels become 48 x 64 (patch 16): the raster is that of the photo all the same.
    let (header, labels) = segment(&server, message(50, 70, options(pb::MaskFormat::Labels))).await;
    let (of_scores, scores) = segment(&server, message(50, 70, options(pb::MaskFormat::Scores))).await;
    assert_eq!((header.rows, header.cols, header.label_bytes, header.n_windows), (50, 70, 1, 1));
    assert_eq!(header.input, Some(pb::Size { height: 48, width: 64 }));
    assert_eq!(header.raster_to_image, Some(pb::Affine { x0: 0.5, dx: 1.0, y0: 0.5, dy: 1.0 }));
    assert_eq!(header.data_bytes, 50 * 70);
    assert_eq!(of_scores.classes.iter().map(|class| class.index).collect::<Vec<_>>(), (0..7).collect::<Vec<_>>());
    let halves: Vec<f16> = scores.data.chunks_exact(2).map(|bytes| f16::from_le_bytes([bytes[0], bytes[1]])).collect();
    assert_eq!(halves.len(), 50 * 70 * N_CLASSES);
    for (label, scores) in labels.data.iter().zip(halves.chunks_exact(N_CLASSES)) {
        let best = scores.iter().copied().fold(f16::NEG_INFINITY, f16::max);
        // Equal after rounding to half precision, the label's score is the best one.
        assert_eq!(scores[usize::from(*label)], best);
    }
    for class in &header.classes {
        let n = labels.data.iter().filter(|label| u32::from(**label) == class.index).count();
        assert_eq!(class.area, n as u64, "{}", class.name);
    }
    assert_eq!(header.classes.iter().map(|class| class.area).sum::<u64>(), 50 * 70);
    assert!(header.classes.is_sorted_by_key(|class| std::cmp::Reverse(class.area)));
    server.stop().await;
}

#[tokio::test]
async fn every_format_of_masks_says_the_same() {
    let server = server().await;
    let min_score = middle_score(&server).await;
    let of = |format| message(48, 80, pb::SegmentOptions { min_score, ..options(format) });
    let (header, labels) = segment(&server, of(pb::MaskFormat::Labels)).await;
    let (_, bits) = segment(&server, of(pb::MaskFormat::Bits)).await;
    let (_, runs) = segment(&server, of(pb::MaskFormat::Rle)).await;
    let (_, outlines) = segment(&server, of(pb::MaskFormat::Polygons)).await;
    let (_, file) = segment(&server, of(pb::MaskFormat::Png)).await;
    let n_covered: u64 = header.classes.iter().map(|class| class.area).sum();
    assert!(n_covered > 48 * 80 / 10 && n_covered < 48 * 80 * 9 / 10, "some pixels have a class and some have none: {n_covered}");
    for (place, class) in header.classes.iter().enumerate() {
        let expected: Vec<bool> = labels.data.iter().map(|label| u32::from(*label) == class.index).collect();
        let Some(pb::mask::Mask::Bits(bytes)) = &bits.masks[place].mask else { panic!("{bits:?}") };
        let unpacked = (0..48 * 80).map(|idx| bytes[idx / 80 * 10 + idx % 80 / 8] >> (7 - idx % 8) & 1 == 1);
        assert_eq!(unpacked.collect::<Vec<_>>(), expected);
        let Some(pb::mask::Mask::Rle(counts)) = &runs.masks[place].mask else { panic!("{runs:?}") };
        let mask = Rle::from_coco_string(48, 80, std::str::from_utf8(counts).unwrap()).unwrap().decode().unwrap();
        assert_eq!((0..48 * 80).map(|idx| mask.is_set(idx / 80, idx % 80)).collect::<Vec<_>>(), expected);
        let Some(pb::mask::Mask::Polygons(polygons)) = &outlines.masks[place].mask else { panic!("{outlines:?}") };
        let area: f64 = polygons.polygons.iter().flat_map(|polygon| polygon.outer.iter().chain(&polygon.holes)).map(area).sum();
        assert!((area.abs() - class.area as f64).abs() < 1e-9, "holes run the other way, so that areas add up");
        let bounds = bits.masks[place].r#box.unwrap();
        let rows: Vec<usize> = (0..48 * 80).filter(|idx| expected[*idx]).map(|idx| idx / 80).collect();
        assert_eq!((bounds.y, bounds.height), (rows[0] as f64, (rows[rows.len() - 1] - rows[0] + 1) as f64));
    }
    let picture = image::load_from_memory(&file.data).unwrap();
    assert_eq!((picture.width(), picture.height()), (80, 48));
    server.stop().await;
}

/// The median of the best scores: a head with random weights prefers one class everywhere, but not equally.
async fn middle_score(server: &TestServer) -> f32 {
    let (_, scores) = segment(server, message(48, 80, options(pb::MaskFormat::Scores))).await;
    let halves: Vec<f16> = scores.data.chunks_exact(2).map(|bytes| f16::from_le_bytes([bytes[0], bytes[1]])).collect();
    let mut best: Vec<f16> =
        halves.chunks_exact(N_CLASSES).map(|scores| scores.iter().copied().fold(f16::ZERO, f16::max)).collect();
    best.sort_by(f16::total_cmp);
    best[best.len() / 2].to_f32()
}

/// Twice-signed area by the shoelace formula, halved.
fn area(ring: &pb::Ring) -> f64 {
    let points: Vec<[f64; 2]> = ring.corners.chunks_exact(2).map(|xy| [f64::from(xy[0]), f64::from(xy[1])]).collect();
    let next = points.iter().cycle().skip(1);
    points.iter().zip(next).map(|(a, b)| a[0] * b[1] - b[0] * a[1]).sum::<f64>() / 2.0
}

#[tokio::test]
async fn one_request_gives_masks_and_features_from_one_run() {
    let server = server().await;
    let wanted = pb::FeatureOptions { lift_passes: Some(1), ..Default::default() };
    let alone = client(&server).await.extract(request(encoded(png(48, 64)), wanted.clone())).await.unwrap().into_inner();
    let both = pb::SegmentRequest { features: Some(wanted), ..message(48, 64, options(pb::MaskFormat::Labels)) };
    let (header, answer) = segment(&server, both).await;
    let together = answer.features.unwrap();
    let (one, other) = (crate::support::f32s(&alone.data), crate::support::f32s(&together.data));
    assert!(one.iter().zip(&other).all(|(a, b)| (a - b).abs() <= 1e-5 * a.abs().max(1.0)), "the same features");
    let (of_masks, of_features) = (header.timing.unwrap(), together.header.unwrap().timing.unwrap());
    assert!(of_masks.backbone_ms > 0.0 && of_masks.segment_ms > 0.0 && of_masks.lift_ms > 0.0);
    assert_eq!(of_masks.backbone_ms, of_features.backbone_ms, "one run of the backbone");
    server.stop().await;
}

#[tokio::test]
async fn a_region_is_a_part_of_the_whole_and_classes_compete_only_with_each_other() {
    let server = server().await;
    let (_, whole) = segment(&server, message(48, 64, options(pb::MaskFormat::Labels))).await;
    // Widened to whole pixels: rows 10 to 30, columns 5 to 25.
    let region = Some(pb::Box { x: 5.5, y: 10.2, width: 19.0, height: 19.5 });
    let (header, part) =
        segment(&server, message(48, 64, pb::SegmentOptions { region, ..options(pb::MaskFormat::Labels) })).await;
    assert_eq!((header.rows, header.cols), (20, 20));
    assert_eq!(header.raster_to_image, Some(pb::Affine { x0: 5.5, dx: 1.0, y0: 10.5, dy: 1.0 }));
    let expected: Vec<u8> = (10..30).flat_map(|row| &whole.data[row * 64 + 5..row * 64 + 25]).copied().collect();
    assert_eq!(part.data, expected);
    let two = pb::SegmentOptions { class_indices: vec![4, 2], ..options(pb::MaskFormat::Labels) };
    let (_, answer) = segment(&server, message(48, 64, two)).await;
    assert!(answer.data.iter().all(|label| [2, 4].contains(label)));
    server.stop().await;
}

#[tokio::test]
async fn large_inputs_are_cut_into_windows_whose_scores_are_averaged() {
    let server = server().await;
    let size = pb::Size { height: 32, width: 32 };
    let tiles = pb::Windows { size: Some(size), stride: Some(pb::Size { height: 16, width: 16 }), whole: false };
    let of = |windows| pb::SegmentOptions { windows: Some(windows), ..options(pb::MaskFormat::Labels) };
    let (header, _) = segment(&server, message(48, 64, of(tiles))).await;
    assert_eq!((header.n_windows, header.rows, header.cols), (6, 48, 64));
    // One window as large as the input is the input.
    let one = pb::Windows { size: Some(pb::Size { height: 64, width: 64 }), ..Default::default() };
    let (header, same) = segment(&server, message(48, 64, of(one))).await;
    let whole = pb::Windows { whole: true, ..Default::default() };
    assert_eq!((header.n_windows, same.data), (1, segment(&server, message(48, 64, of(whole))).await.1.data));
    let both = pb::SegmentRequest { features: Some(features(0)), ..message(48, 64, of(tiles)) };
    let refused = client(&server).await.segment(both).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().starts_with("features: cannot go with 6 windows"), "{refused}");
    server.stop().await;
}

#[tokio::test]
async fn what_cannot_be_is_refused_by_the_name_of_its_field() {
    let server = server().await;
    let labels = || options(pb::MaskFormat::Labels);
    let outside = pb::Box { x: 100.0, y: 0.0, width: 5.0, height: 5.0 };
    let odd = pb::Windows { size: Some(pb::Size { height: 30, width: 32 }), ..Default::default() };
    let cases = [
        (pb::SegmentOptions { classes: vec!["unicorn".into()], ..labels() }, "masks.classes[0]"),
        (pb::SegmentOptions { class_indices: vec![7], ..labels() }, "masks.class_indices"),
        (pb::SegmentOptions { class_indices: vec![1, 1], ..labels() }, "masks.class_indices"),
        (pb::SegmentOptions { region: Some(outside), ..labels() }, "masks.region"),
        (pb::SegmentOptions { windows: Some(odd), ..labels() }, "masks.windows.size"),
        (pb::SegmentOptions { threshold: Some(0.5), ..labels() }, "masks.threshold"),
    ];
    for (masks, field) in cases {
        let refused = client(&server).await.segment(message(48, 64, masks)).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().starts_with(&format!("{field}: ")), "{refused}");
    }
    let headless = pb::ModelRef { name: "registers".into(), ..Default::default() };
    let asked = pb::SegmentRequest { model: Some(headless), ..message(56, 56, labels()) };
    let refused = client(&server).await.segment(asked).await.unwrap_err();
    assert!(refused.code() == Code::InvalidArgument && refused.message().contains("has no segmentation head"), "{refused}");
    server.stop().await;
}

#[tokio::test]
async fn chunks_hold_what_the_unary_answer_holds() {
    let server = server().await;
    for format in [pb::MaskFormat::Labels, pb::MaskFormat::Scores, pb::MaskFormat::Rle, pb::MaskFormat::Png] {
        let asked = pb::SegmentRequest { features: Some(features(0)), ..message(96, 128, options(format)) };
        let (header, whole) = segment(&server, asked.clone()).await;
        let mut chunks = client(&server).await.segment_chunked(asked).await.unwrap().into_inner();
        let Some(Part::Header(first)) = chunks.message().await.unwrap().unwrap().part else { panic!("the header comes first") };
        assert_eq!(first.header.as_ref().unwrap().classes, header.classes);
        let (mut data, mut masks, mut n_bands, mut features) = (Vec::new(), Vec::new(), 0, Vec::new());
        while let Some(chunk) = chunks.message().await.unwrap() {
            match chunk.part.unwrap() {
                Part::Header(_) => panic!("two headers"),
                Part::Mask(mask) => masks.push(mask),
                Part::Band(band) => {
                    assert_eq!((band.index, crc32fast::hash(&band.data)), (n_bands, band.crc32));
                    n_bands += 1;
                    data.extend_from_slice(&band.data);
                }
                Part::Features(part) => {
                    if let Some(extract_chunk::Part::Band(band)) = part.part {
                        features.extend_from_slice(&band.data);
                    }
                }
            }
        }
        assert_eq!((data, masks, n_bands), (whole.data.to_vec(), whole.masks, first.n_bands));
        assert_eq!(features.len(), whole.features.unwrap().data.len());
    }
    server.stop().await;
}

#[tokio::test]
async fn a_stream_answers_each_image_under_its_id_and_a_bad_one_alone() {
    let server = server().await;
    let sides = [(48, 64), (32, 32), (64, 48), (48, 64)];
    let mut sent: Vec<pb::SegmentStreamRequest> = sides
        .into_iter()
        .enumerate()
        .map(|(idx, (height, width))| pb::SegmentStreamRequest {
            id: idx.to_string(),
            request: Some(message(height, width, options(pb::MaskFormat::Rle))),
            ..Default::default()
        })
        .collect();
    let broken = encoded(jpeg(32, 32).slice(..100));
    let bad = pb::SegmentRequest { image: Some(broken), ..message(32, 32, options(pb::MaskFormat::Rle)) };
    sent.push(pb::SegmentStreamRequest { id: "bad".into(), request: Some(bad), ..Default::default() });
    let mut answers = client(&server).await.segment_stream(iter(sent)).await.unwrap().into_inner();
    let mut seen = HashMap::new();
    while let Some(answer) = answers.next().await {
        let answer = answer.unwrap();
        let outcome = match answer.result.unwrap() {
            Answer::Response(response) => response.header.map(|header| (header.rows, header.cols)),
            Answer::Error(error) => {
                assert_eq!((error.code, error.field.as_str()), (Code::InvalidArgument as i32, "image.encoded"));
                None
            }
            Answer::Chunk(chunk) => panic!("{chunk:?}"),
        };
        assert!(seen.insert(answer.id, outcome).is_none(), "answered twice");
    }
    let mut expected: HashMap<String, Option<(u32, u32)>> =
        sides.iter().enumerate().map(|(idx, side)| (idx.to_string(), Some(*side))).collect();
    expected.insert("bad".into(), None);
    assert_eq!(seen, expected);
    server.stop().await;
}

#[tokio::test]
async fn a_model_tells_its_classes() {
    let server = server().await;
    let asked = pb::GetModelRequest { model: Some(pb::ModelRef { name: "tiny".into(), ..Default::default() }) };
    let head = client(&server).await.get_model(asked).await.unwrap().into_inner().segmenter.unwrap();
    assert_eq!((head.form.as_str(), head.classes.len(), head.upscale), ("segvit", N_CLASSES, 4));
    assert_eq!(head.classes[3].name, "class_3");
    server.stop().await;
}
