//! Objects, matches and labels along a video with the default model on a real photo, asked of a server of its own.

use std::io::Cursor;

use bytes::Bytes;
use densevit::{grpc::pb::v1 as pb, masks::BitMask};
use image::{DynamicImage, GrayImage, ImageFormat, Luma, RgbImage};

use crate::support::{root, with_client};

/// Pixels on a side of a patch.
const PATCH: f64 = 14.0;

fn chelsea() -> RgbImage {
    image::open(root().join("third_party/photos/chelsea.png")).expect("run `make setup` first").into_rgb8()
}

/// A part of the photo, as a file.
fn part([left, top]: [u32; 2], [width, height]: [u32; 2]) -> pb::Image {
    let part = image::imageops::crop_imm(&chelsea(), left, top, width, height).to_image();
    pb::Image { source: Some(pb::image::Source::Encoded(file(part.into()))) }
}

fn file(image: DynamicImage) -> Bytes {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner().into()
}

fn native() -> pb::Preprocess {
    pb::Preprocess { resize: Some(pb::preprocess::Resize::Native(true)), ..Default::default() }
}

#[tokio::test]
async fn the_object_of_a_photo_is_the_face_of_the_cat_that_fills_it() {
    let photo = std::fs::read(root().join("third_party/photos/chelsea.png")).unwrap();
    let image = Some(pb::Image { source: Some(pb::image::Source::Encoded(photo.into())) });
    let request = pb::DiscoverRequest { image, cells: pb::MaskFormat::Bits.into(), ..Default::default() };
    let found = with_client(|client| async move { client.discover(request).await.unwrap() }).await;
    let (Some(map), [object]) = (&found.map, &found.objects[..]) else { panic!("{found:?}") };
    assert_eq!(
        (map.facet(), map.layer, map.lift_passes),
        (pb::Facet::Token, 10, 0),
        "the model's own map, as the backbone gives it"
    );
    let Some(pb::mask::Mask::Bits(bits)) = object.mask.as_ref().and_then(|mask| mask.mask.clone()) else { panic!("{object:?}") };
    let mask = BitMask::from_bits(map.rows as usize, map.cols as usize, bits.to_vec()).unwrap();
    let affine = map.grid_to_image.unwrap();
    let cell = |at: f64, first: f64, step: f64| ((at - first) / step).round() as usize;
    let is_inside = |[x, y]: [f64; 2]| mask.is_set(cell(y, affine.y0, affine.dy), cell(x, affine.x0, affine.dx));
    // By eye: both eyes, forehead, cheek and the bridge of the nose; wall, sofa on both sides, and the chest under the chin. The face fills
    // most of the photo, so that the ground is the smaller side of the cut and holds all corners.
    let face = [[171.0, 116.0], [318.0, 135.0], [230.0, 60.0], [130.0, 170.0], [262.0, 190.0]].map(is_inside);
    let around = [[430.0, 60.0], [425.0, 150.0], [430.0, 270.0], [8.0, 80.0], [60.0, 280.0]].map(is_inside);
    assert_eq!((face, around), ([true; 5], [false; 5]), "{object:?}");
    assert!(object.score > 0.3, "{object:?}");
}

#[tokio::test]
async fn points_of_a_photo_are_found_in_a_part_of_it_within_a_cell() {
    const SHIFT: [u32; 2] = [42, 28];
    let places = |begin: u32, end: u32| (begin..end).step_by(40).map(f64::from);
    let points: Vec<[f64; 2]> = places(80, 400).flat_map(|x| places(70, 250).map(move |y| [x, y])).collect();
    let request = pb::MatchRequest {
        source: Some(part([0, 0], [448, 294])),
        target: Some(part(SHIFT, [392, 252])),
        preprocess: Some(native()),
        points: points.iter().map(|[x, y]| pb::Point { x: *x, y: *y }).collect(),
        ..Default::default()
    };
    let found = with_client(|client| async move { client.match_points(request).await.unwrap() }).await;
    assert_eq!((found.source.as_ref().unwrap().lift_passes, found.matches.len()), (1, points.len()));
    let error = |([x, y], found): (&[f64; 2], &pb::PointMatch)| {
        let at = found.point.unwrap();
        (at.x - (x - f64::from(SHIFT[0]))).abs().max((at.y - (y - f64::from(SHIFT[1]))).abs())
    };
    let errors: Vec<f64> = points.iter().zip(&found.matches).map(error).collect();
    let n_near = errors.iter().filter(|error| **error <= PATCH).count();
    assert!(n_near * 10 >= errors.len() * 9, "{n_near} of {} points within a patch: {errors:?}", errors.len());
    let n_mutual = found.matches.iter().filter(|found| found.is_mutual).count();
    // A cell is half a patch after LiFT, so that the way back is held to half of what the way there is.
    assert!(n_mutual * 4 >= errors.len() * 3, "{n_mutual} of {} lead back", errors.len());
}

/// Label 1 on the left eye, label 2 on the nose, by eye, in a part of the photo that begins at column `left`.
fn face(left: u32) -> GrayImage {
    let inside = |x: u32, y: u32, [cx, cy]: [f64; 2], [rx, ry]: [f64; 2]| {
        ((f64::from(x + left) - cx) / rx).powi(2) + ((f64::from(y) - cy) / ry).powi(2) <= 1.0
    };
    GrayImage::from_fn(364, 294, |x, y| {
        if inside(x, y, [171.0, 116.0], [38.0, 34.0]) {
            return Luma([1]);
        }
        Luma([if inside(x, y, [264.0, 245.0], [32.0, 24.0]) { 2 } else { 0 }])
    })
}

#[tokio::test]
async fn labels_follow_a_face_that_moves_through_the_picture() {
    // Six pixels a frame: less than half a patch, so that nothing falls on the same place of the grid again soon.
    let lefts: Vec<u32> = (0..8).map(|frame| frame * 6).collect();
    let start = pb::PropagateStart {
        frame: Some(part([0, 0], [364, 294])),
        preprocess: Some(native()),
        labels: Some(pb::LabelMap { png: file(face(0).into()), ..Default::default() }),
        ..Default::default()
    };
    let first = pb::PropagateRequest { part: Some(pb::propagate_request::Part::Start(start)) };
    let frames = lefts[1..].iter().map(|left| part([*left, 0], [364, 294]));
    let frames = frames.map(|image| pb::PropagateRequest { part: Some(pb::propagate_request::Part::Frame(image)) });
    let messages: Vec<pb::PropagateRequest> = std::iter::once(first).chain(frames).collect();
    let answers = with_client(|client| async move {
        let mut video = client.propagate(tokio_stream::iter(messages)).await.unwrap();
        let mut answers = Vec::new();
        while let Some(answer) = video.next().await.unwrap() {
            answers.push(answer);
        }
        answers
    })
    .await;
    assert_eq!(answers.len(), lefts.len());
    for (answer, left) in answers.iter().zip(lefts) {
        let Some(pb::propagate_response::Result::Masks(masks)) = &answer.result else { panic!("{answer:?}") };
        for label in [1, 2] {
            let expected = face(left);
            let both = masks.data.iter().zip(expected.as_raw()).filter(|(a, b)| **a == label && **b == label).count();
            let either = masks.data.iter().zip(expected.as_raw()).filter(|(a, b)| **a == label || **b == label).count();
            let iou = both as f64 / either as f64;
            // The nose covers four cells and a half: a border that is off by a quarter of a cell costs as much.
            assert!(iou >= 0.6, "label {label} in frame {}: {iou}", answer.frame);
        }
    }
}
