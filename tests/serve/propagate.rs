//! `Propagate`: labels of a first frame along a video.

use std::{io::Cursor, time::Duration};

use bytes::Bytes;
use densevit::{
    grpc::pb::v1::{self as pb, mask::Mask as Form, propagate_request::Part, propagate_response::Result as Answer},
    masks::{BitMask, Rle},
};
use tokio::sync::mpsc;
use tokio_stream::{StreamExt as _, iter, wrappers::ReceiverStream};
use tonic::{Code, Status, Streaming};

use crate::support::{TestServer, client, encoded, jpeg, png, raw, server, server_with};

const HEIGHT: u32 = 64;
const WIDTH: u32 = 128;

/// A square of 32 pixels of noise with its left side at `left`, on a smooth ground.
fn frame(left: u32) -> pb::Image {
    let pixel = |x: u32, y: u32| {
        if (16..48).contains(&y) && (left..left + 32).contains(&x) {
            let state = ((x - left) * 7919 + y * 104_729).wrapping_mul(0x9E37_79B1);
            return [(state >> 8) as u8, (state >> 16) as u8, (state >> 24) as u8];
        }
        [40, 60 + (y / 8) as u8, 50]
    };
    let data: Vec<u8> = (0..HEIGHT).flat_map(|y| (0..WIDTH).flat_map(move |x| pixel(x, y))).collect();
    raw(&pb::RawImage { height: HEIGHT, width: WIDTH, data: data.into() })
}

/// Label 3 in the square, 0 elsewhere.
fn labels(left: u32) -> Vec<u8> {
    let label = |x: u32, y: u32| if (16..48).contains(&y) && (left..left + 32).contains(&x) { 3 } else { 0 };
    (0..HEIGHT).flat_map(|y| (0..WIDTH).map(move |x| label(x, y))).collect()
}

fn start() -> pb::PropagateStart {
    let native = pb::Preprocess { resize: Some(pb::preprocess::Resize::Native(true)), ..Default::default() };
    pb::PropagateStart {
        frame: Some(frame(16)),
        preprocess: Some(native),
        // Of the first block: what it makes of a patch depends little on where it stands.
        features: Some(pb::MapOptions { facet: pb::Facet::Key.into(), layer: Some(0), lift_passes: None }),
        labels: Some(pb::LabelMap { raw: labels(16).into(), ..Default::default() }),
        ..Default::default()
    }
}

fn first(start: pb::PropagateStart) -> pb::PropagateRequest {
    pb::PropagateRequest { part: Some(Part::Start(start)) }
}

fn next(frame: pb::Image) -> pb::PropagateRequest {
    pb::PropagateRequest { part: Some(Part::Frame(frame)) }
}

async fn call(server: &TestServer, messages: Vec<pb::PropagateRequest>) -> Streaming<pb::PropagateResponse> {
    client(server).await.propagate(iter(messages)).await.unwrap().into_inner()
}

async fn answers(server: &TestServer, messages: Vec<pb::PropagateRequest>) -> Vec<pb::PropagateResponse> {
    call(server, messages).await.map(Result::unwrap).collect().await
}

/// The status that ends a call.
async fn end(server: &TestServer, messages: Vec<pb::PropagateRequest>) -> Status {
    let mut answers = call(server, messages.clone()).await;
    while let Some(answer) = answers.next().await {
        if let Err(status) = answer {
            return status;
        }
    }
    panic!("the call ends well: {:?}", messages[0])
}

fn masks(answer: &pb::PropagateResponse) -> &pb::SegmentResponse {
    match &answer.result {
        Some(Answer::Masks(masks)) => masks,
        other => panic!("frame {}: {other:?}", answer.frame),
    }
}

/// Intersection over union of label 3.
fn overlap(got: &[u8], expected: &[u8]) -> f64 {
    let both = got.iter().zip(expected).filter(|(got, expected)| **got == 3 && **expected == 3).count();
    let either = got.iter().zip(expected).filter(|(got, expected)| **got == 3 || **expected == 3).count();
    both as f64 / either as f64
}

#[tokio::test]
async fn labels_follow_what_moves_and_answers_come_in_order() {
    let server = server().await;
    // By a cell a frame; twenty frames are more than may be in flight at once.
    let lefts: Vec<u32> = (0..20).map(|idx| 16 + 16 * (idx % 5)).collect();
    let messages = std::iter::once(first(start())).chain(lefts[1..].iter().map(|left| next(frame(*left))));
    let answers = answers(&server, messages.collect()).await;
    assert_eq!(answers.iter().map(|answer| answer.frame).collect::<Vec<_>>(), (0..20).collect::<Vec<u64>>());
    for (answer, left) in answers.iter().zip(lefts) {
        let masks = masks(answer);
        let header = masks.header.as_ref().unwrap();
        assert_eq!((header.rows, header.cols, header.label_bytes, header.format()), (HEIGHT, WIDTH, 1, pb::MaskFormat::Labels));
        let iou = overlap(&masks.data, &labels(left));
        assert!(iou > 0.7, "frame {}: {iou}", answer.frame);
        let areas: Vec<(u32, u64)> = header.classes.iter().map(|class| (class.index, class.area)).collect();
        let count = |label: u8| masks.data.iter().filter(|other| **other == label).count() as u64;
        assert_eq!(areas, [(0, count(0)), (3, count(3))]);
        assert!(
            header.classes.iter().all(|class| class.name.is_empty() && class.score > 0.5 && class.score <= 1.0),
            "{header:?}"
        );
        // The fourth colour of PASCAL VOC.
        assert_eq!(header.classes[1].color, 0x80_80_00);
    }
    let map = answers[0].map.as_ref().unwrap();
    assert_eq!((map.rows, map.cols, map.lift_passes, map.layer), (4, 8, 0, 0));
    assert!(answers[1].map.is_none());
    server.stop().await;
}

#[tokio::test]
async fn labels_may_come_and_go_in_every_form() {
    let server = server().await;
    let of = |labels: pb::LabelMap, format: pb::MaskFormat| {
        vec![first(pb::PropagateStart { labels: Some(labels), format: format.into(), ..start() }), next(frame(32))]
    };
    let plain = answers(&server, of(pb::LabelMap { raw: labels(16).into(), ..Default::default() }, pb::MaskFormat::Labels)).await;
    let expected = &masks(&plain[1]).data;
    let grey = {
        let mut file = Cursor::new(Vec::new());
        let image = image::GrayImage::from_raw(WIDTH, HEIGHT, labels(16)).unwrap();
        image.write_to(&mut file, image::ImageFormat::Png).unwrap();
        Bytes::from(file.into_inner())
    };
    let set: Vec<bool> = labels(16).iter().map(|label| *label == 3).collect();
    let mask = BitMask::of_pixels(HEIGHT as usize, WIDTH as usize, &set).unwrap();
    let runs = Rle::of_mask(&mask).to_coco_string();
    let in_mask =
        |form| pb::LabelMap { masks: vec![pb::Mask { class_index: 3, r#box: None, mask: Some(form) }], ..Default::default() };
    let forms = [
        pb::LabelMap { png: grey, ..Default::default() },
        in_mask(Form::Rle(runs.into())),
        in_mask(Form::Bits(mask.bits().to_vec().into())),
    ];
    for labels in forms {
        let same = answers(&server, of(labels.clone(), pb::MaskFormat::Labels)).await;
        assert_eq!(&masks(&same[1]).data, expected, "{labels:?}");
        let file = answers(&server, of(labels.clone(), pb::MaskFormat::Png)).await;
        let picture = image::load_from_memory(&masks(&file[1]).data).unwrap().into_rgb8();
        let color = |label: u8| if label == 3 { [128, 128, 0] } else { [0; 3] };
        assert!(picture.pixels().zip(expected).all(|(pixel, label)| pixel.0 == color(*label)), "{labels:?}");
    }
    let runs = answers(&server, of(in_mask(Form::Bits(mask.bits().to_vec().into())), pb::MaskFormat::Rle)).await;
    let listed = masks(&runs[1]).masks.iter().find(|mask| mask.class_index == 3).unwrap();
    let Some(Form::Rle(counts)) = &listed.mask else { panic!("{listed:?}") };
    let found =
        Rle::from_coco_string(HEIGHT as usize, WIDTH as usize, std::str::from_utf8(counts).unwrap()).unwrap().decode().unwrap();
    let same = (0..HEIGHT as usize)
        .all(|row| (0..WIDTH as usize).all(|col| found.is_set(row, col) == (expected[row * WIDTH as usize + col] == 3)));
    assert!(same, "run lengths say what labels say");
    let none = answers(&server, of(pb::LabelMap { raw: labels(16).into(), ..Default::default() }, pb::MaskFormat::None)).await;
    assert!(masks(&none[1]).data.is_empty() && masks(&none[1]).header.as_ref().unwrap().classes.len() == 2);
    let cells = pb::PropagateStart { size: pb::MaskSize::Scores.into(), ..start() };
    let cells = answers(&server, vec![first(cells)]).await;
    let header = masks(&cells[0]).header.as_ref().unwrap();
    assert_eq!((header.rows, header.cols), (4, 8));
    assert_eq!(header.raster_to_image, Some(pb::Affine { x0: 8.0, dx: 16.0, y0: 8.0, dy: 16.0 }));
    assert_eq!(masks(&cells[0]).data.iter().filter(|label| **label == 3).count(), 4, "the square covers four cells");
    server.stop().await;
}

#[tokio::test]
async fn a_frame_that_fails_is_answered_in_its_place_and_leaves_no_trace() {
    let server = server().await;
    let broken = encoded(jpeg(32, 32).slice(..100));
    let messages = vec![
        first(start()),
        next(frame(32)),
        next(broken),
        next(encoded(png(48, 64))),
        first(start()),
        pb::PropagateRequest { part: None },
        next(frame(48)),
    ];
    let found = answers(&server, messages).await;
    let errors: Vec<(u64, i32, &str)> = found
        .iter()
        .filter_map(|answer| match &answer.result {
            Some(Answer::Error(error)) => Some((answer.frame, error.code, error.field.as_str())),
            _ => None,
        })
        .collect();
    let invalid = Code::InvalidArgument as i32;
    assert_eq!(errors, [(2, invalid, "frame.encoded"), (3, invalid, "frame"), (4, invalid, "start"), (5, invalid, "frame")]);
    let Some(Answer::Error(other)) = &found[3].result else { panic!("{found:?}") };
    assert!(other.message.contains("3 x 4") && other.message.contains("4 x 8"), "{other:?}");
    let without = answers(&server, vec![first(start()), next(frame(32)), next(frame(48))]).await;
    assert_eq!(masks(&found[6]).data, masks(&without[2]).data);
    server.stop().await;
}

#[tokio::test]
async fn a_beginning_that_cannot_be_ends_the_call_by_the_name_of_its_field() {
    let server = server().await;
    let options = |options: pb::PropagateOptions| pb::PropagateStart { options: Some(options), ..start() };
    let given = |labels: pb::LabelMap| pb::PropagateStart { labels: Some(labels), ..start() };
    let none = pb::PropagateOptions::default;
    let mut photo = Cursor::new(Vec::new());
    image::RgbImage::new(WIDTH, HEIGHT).write_to(&mut photo, image::ImageFormat::Png).unwrap();
    let many: Vec<u8> = (0..HEIGHT * WIDTH).map(|pixel| (pixel % 65) as u8).collect();
    let large = pb::Preprocess {
        resize: Some(pb::preprocess::Resize::Exact(pb::Size { height: 1024, width: 1024 })),
        ..Default::default()
    };
    let cases = [
        (options(pb::PropagateOptions { context_frames: Some(33), ..none() }), "start.options.context_frames", "0 to 32"),
        (options(pb::PropagateOptions { radius: Some(0), ..none() }), "start.options.radius", "1 to 128"),
        (options(pb::PropagateOptions { top_k: Some(65), ..none() }), "start.options.top_k", "1 to 64"),
        (options(pb::PropagateOptions { temperature: Some(0.0), ..none() }), "start.options.temperature", "[0.001, 10]"),
        (options(pb::PropagateOptions { temperature: Some(f32::NAN), ..none() }), "start.options.temperature", "NaN"),
        (
            pb::PropagateStart {
                preprocess: Some(large),
                ..options(pb::PropagateOptions { radius: Some(128), context_frames: Some(8), ..none() })
            },
            "start.options",
            "134217728",
        ),
        (pb::PropagateStart { labels: None, ..start() }, "start.labels", "required"),
        (given(pb::LabelMap { raw: vec![0; 7].into(), ..Default::default() }), "start.labels.raw", "64 x 128"),
        (given(pb::LabelMap { raw: many.into(), ..Default::default() }), "start.labels", "64"),
        (given(pb::LabelMap { png: png(10, 10), ..Default::default() }), "start.labels.png", "colours"),
        (given(pb::LabelMap { png: photo.into_inner().into(), ..Default::default() }), "start.labels.png", "colours"),
        (pb::PropagateStart { format: pb::MaskFormat::Scores.into(), ..start() }, "start.format", "NONE"),
        (pb::PropagateStart { frame: None, ..start() }, "start.frame", "required"),
        (pb::PropagateStart { frame: Some(encoded(jpeg(9, 9).slice(..50))), ..start() }, "start.frame.encoded", ""),
    ];
    for (start, field, words) in cases {
        let refused = end(&server, vec![first(start)]).await;
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        assert!(refused.message().starts_with(&format!("{field}: ")) && refused.message().contains(words), "{refused}");
    }
    let refused = end(&server, vec![next(frame(16))]).await;
    assert!(refused.code() == Code::InvalidArgument && refused.message().starts_with("start: is required"), "{refused}");
    let unknown = pb::PropagateStart { model: Some(pb::ModelRef { name: "huge".into(), ..Default::default() }), ..start() };
    assert_eq!(end(&server, vec![first(unknown)]).await.code(), Code::NotFound);
    assert!(answers(&server, Vec::new()).await.is_empty(), "a call without messages is none");
    server.stop().await;
}

#[tokio::test]
async fn a_call_holds_its_place_until_it_ends_and_the_client_leaving_ends_it() {
    let settings = [("limits.max_in_flight", "2"), ("limits.max_tenant_percent", "100")];
    let server = server_with(&settings).await;
    let (sender, messages) = mpsc::channel(1);
    sender.send(first(start())).await.unwrap();
    let mut video = client(&server).await.propagate(ReceiverStream::new(messages)).await.unwrap().into_inner();
    masks(&video.next().await.unwrap().unwrap());
    // The video holds one of two places, and its frames take the other.
    let (second_sender, second) = mpsc::channel(1);
    second_sender.send(first(start())).await.unwrap();
    let mut other = client(&server).await.propagate(ReceiverStream::new(second)).await.unwrap().into_inner();
    let refused = other.next().await.unwrap().unwrap_err();
    assert!(refused.code() == Code::ResourceExhausted && refused.message().contains("limits.max_in_flight"), "{refused}");
    sender.send(next(frame(32))).await.unwrap();
    masks(&video.next().await.unwrap().unwrap());
    drop((sender, video));
    server.idle().await;
    server.stop().await;

    // Frames of 4,096 cells, of which many are waiting when their client leaves.
    let server = crate::support::server().await;
    let size = pb::Size { height: 1024, width: 1024 };
    let large = pb::Preprocess { resize: Some(pb::preprocess::Resize::Exact(size)), ..Default::default() };
    let frames = (0..8).map(|_| next(frame(16)));
    let begin = first(pb::PropagateStart { preprocess: Some(large), ..start() });
    let mut video = call(&server, std::iter::once(begin).chain(frames).collect()).await;
    masks(&video.next().await.unwrap().unwrap());
    server.in_flight(3).await;
    drop(video);
    server.idle().await;
    server.stop().await;

    let few = server_with(&[("limits.max_in_flight_bytes", "600000"), ("limits.max_tenant_percent", "100")]).await;
    let long = pb::PropagateOptions { context_frames: Some(32), ..Default::default() };
    let refused = end(&few, vec![first(pb::PropagateStart { options: Some(long), ..start() })]).await;
    assert!(refused.code() == Code::ResourceExhausted && refused.message().contains("max_in_flight_bytes"), "{refused}");
    few.stop().await;
}

#[tokio::test]
async fn shutting_down_answers_what_was_read_and_ends_the_call() {
    let server = server_with(&[("shutdown.budget_s", "600")]).await;
    let (sender, messages) = mpsc::channel(1);
    sender.send(first(start())).await.unwrap();
    let mut video = client(&server).await.propagate(ReceiverStream::new(messages)).await.unwrap().into_inner();
    masks(&video.next().await.unwrap().unwrap());
    sender.send(next(frame(32))).await.unwrap();
    masks(&video.next().await.unwrap().unwrap());
    let begun = std::time::Instant::now();
    let stopping = tokio::spawn(server.stop());
    let status = video.next().await.unwrap().unwrap_err();
    assert!(status.code() == Code::Unavailable && status.message().contains("last labels"), "{status}");
    drop(video);
    stopping.await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(300), "the drain ends with the call, not with the budget");
}
