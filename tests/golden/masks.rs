//! Masks against pycocotools and PyTorch (`tests/reference/make_masks.py`).

use densevit::{
    masks::{
        BitMask, ClassSet, LabelMap, LabelOptions, Labels, MaskLimits, Raster, Rle, Sampler, Scores, label, masks_of_labels,
    },
    tensor::FeatureMap,
};
use safetensors::SafeTensors;

use crate::support::{Tensor, fixture, tensors};

/// Error of a sampled score up to 1. Both mix in single precision, in different orders.
const SAMPLED: f32 = 1e-6;
const FILE: &str = "masks/masks.safetensors";

/// A mask of the fixture and what pycocotools makes of it.
struct Reference {
    name: String,
    mask: BitMask,
    rle: String,
    area_px: u64,
}

fn bytes_of(file: &SafeTensors<'_>, name: &str) -> Vec<u8> {
    file.tensor(name).unwrap().data().to_vec()
}

fn integers(file: &SafeTensors<'_>, name: &str) -> Vec<usize> {
    let bytes = bytes_of(file, name);
    bytes.chunks_exact(8).map(|bytes| usize::try_from(i64::from_le_bytes(bytes.try_into().unwrap())).unwrap()).collect()
}

fn references(file: &SafeTensors<'_>) -> Vec<Reference> {
    let names = file.names().into_iter().filter_map(|name| name.strip_suffix(".bits").map(str::to_owned));
    let reference = |name: String| {
        let [rows, cols] = integers(file, &format!("{name}.size"))[..] else { panic!("{name} has no size") };
        let mask = BitMask::from_bits(rows, cols, bytes_of(file, &format!("{name}.bits"))).unwrap();
        let rle = String::from_utf8(bytes_of(file, &format!("{name}.rle"))).unwrap();
        let area_px = integers(file, &format!("{name}.area"))[0] as u64;
        Reference { name, mask, rle, area_px }
    };
    names.map(reference).collect()
}

#[test]
fn compressed_run_lengths_are_those_of_pycocotools() {
    let bytes = std::fs::read(fixture(FILE)).unwrap();
    let references = references(&SafeTensors::deserialize(&bytes).unwrap());
    assert_eq!(references.len(), 9);
    for Reference { name, mask, rle, area_px } in references {
        let encoded = Rle::of_mask(&mask);
        assert_eq!(encoded.to_coco_string(), rle, "{name}");
        assert_eq!((encoded.area_px(), mask.area_px()), (area_px, area_px), "{name}");
        let read = Rle::from_coco_string(mask.rows(), mask.cols(), &rle).unwrap();
        assert_eq!(read, encoded, "{name}");
        assert_eq!(read.decode().unwrap(), mask, "{name}");
    }
}

#[test]
fn all_classes_of_a_label_map_are_those_of_pycocotools() {
    let bytes = std::fs::read(fixture(FILE)).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let shape = file.tensor("labels").unwrap().shape().to_vec();
    let map = LabelMap::new(shape[0], shape[1], 5, Labels::U8(bytes_of(&file, "labels"))).unwrap();
    let classes = ClassSet::all(5).unwrap();
    let strings: Vec<String> = Rle::of_labels(&map, &classes).unwrap().iter().map(Rle::to_coco_string).collect();
    let expected: Vec<Vec<u8>> = (0..5).map(|class| bytes_of(&file, &format!("labels.rle_{class}"))).collect();
    assert_eq!(strings.iter().map(|string| string.as_bytes().to_vec()).collect::<Vec<_>>(), expected);
    let masks = masks_of_labels(&map, &classes, &MaskLimits::default()).unwrap();
    assert_eq!(masks.iter().map(|mask| Rle::of_mask(mask).to_coco_string()).collect::<Vec<_>>(), strings);
}

/// The pixels of an output that differ from the reference in their label, where its best two scores are not all but equal.
fn wrong_labels(map: &LabelMap, labels: &[u8], sampled: &Tensor) -> usize {
    let n_classes = *sampled.shape.last().unwrap();
    let is_tie = |pixel: &[f32], class: usize| {
        pixel.iter().enumerate().any(|(other, score)| other != class && (score - pixel[class]).abs() <= 2.0 * SAMPLED)
    };
    let is_wrong = |(idx, label): (usize, &u8)| {
        let (pixel, class) = (&sampled.values[idx * n_classes..][..n_classes], usize::from(*label));
        map.class_at(idx / map.cols(), idx % map.cols()) != Some(u16::from(*label)) && !is_tie(pixel, class)
    };
    labels.iter().enumerate().filter(|entry| is_wrong(*entry)).count()
}

#[test]
fn scores_and_labels_at_any_size_are_those_of_pytorch() {
    let bytes = std::fs::read(fixture(FILE)).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let floats = tensors(FILE);
    let coarse = &floats["scores"];
    let map = FeatureMap::new(coarse.shape[0], coarse.shape[1], coarse.shape[2], coarse.values.clone().into()).unwrap();
    let (scores, classes) = (Scores::new(map).unwrap(), ClassSet::all(3).unwrap());
    let outputs: Vec<_> = floats.iter().filter(|(name, _)| name.starts_with("scores.")).collect();
    assert_eq!(outputs.len(), 4);
    for (name, expected) in outputs {
        let [height, width, _] = expected.shape[..] else { panic!("{name} is no map") };
        let raster = Raster::resized(scores.grid(), [height, width], &MaskLimits::default()).unwrap();
        let sampler = Sampler::new(&scores, &raster, &classes).unwrap();
        let got = sampler.band(0..height, u64::MAX).unwrap();
        let worst = got.iter().zip(&expected.values).map(|(got, expected)| (got - expected).abs()).fold(0f32, f32::max);
        assert!(worst <= SAMPLED, "{name}: {worst}");
        let labelled = label(&sampler, &LabelOptions::default()).unwrap();
        assert_eq!(wrong_labels(&labelled.map, &bytes_of(&file, &format!("{name}.labels")), expected), 0, "{name}");
    }
}
