//! Shapes, element types and lengths of inputs.

#![expect(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;

fn tensor(name: &str, datatype: &str, shape: &[i64]) -> InferInputTensor {
    InferInputTensor { name: name.into(), datatype: datatype.into(), shape: shape.to_vec(), ..Default::default() }
}

fn raw_bytes(files: &[&[u8]]) -> Bytes {
    let length = |file: &[u8]| u32::try_from(file.len()).unwrap().to_le_bytes();
    files.iter().flat_map(|file| [&length(file)[..], file].concat()).collect()
}

fn read(input: InferInputTensor, raw: Bytes) -> Result<Images, InferError> {
    Images::read(vec![input], vec![raw], 4)
}

fn files(images: &Images) -> Vec<&[u8]> {
    images.sources.iter().map(file).collect()
}

fn file(source: &ImageSource) -> &[u8] {
    match source {
        ImageSource::Encoded(bytes) => bytes,
        ImageSource::Raw { data, .. } => data,
    }
}

#[test]
fn raw_and_typed_files_are_the_same_files() {
    let raw = read(tensor("image", "BYTES", &[2, 1]), raw_bytes(&[b"first", b""])).unwrap();
    assert_eq!(files(&raw), [&b"first"[..], b""]);
    let contents = InferTensorContents { bytes_contents: vec![Bytes::from_static(b"first"), Bytes::new()], ..Default::default() };
    let typed = InferInputTensor { contents: Some(contents), ..tensor("image", "BYTES", &[2]) };
    assert_eq!(files(&Images::read(vec![typed], Vec::new(), 4).unwrap()), files(&raw));
}

#[test]
fn raw_and_typed_pixels_are_the_same_pixels() {
    let pixels: Vec<u8> = (0..24).collect();
    let raw = read(tensor("pixels", "UINT8", &[2, 2, 2, 3]), pixels.clone().into()).unwrap();
    assert_eq!(files(&raw), [&pixels[..12], &pixels[12..]]);
    assert!(raw.sources.iter().all(|source| matches!(source, ImageSource::Raw { height: 2, width: 2, .. })));
    let contents = InferTensorContents { uint_contents: pixels.iter().copied().map(u32::from).collect(), ..Default::default() };
    let typed = InferInputTensor { contents: Some(contents), ..tensor("pixels", "UINT8", &[2, 2, 2, 3]) };
    assert_eq!(files(&Images::read(vec![typed], Vec::new(), 4).unwrap()), files(&raw));
}

#[test]
fn whatever_does_not_fit_is_named() {
    let image = |shape: &[i64]| tensor("image", "BYTES", shape);
    let one = || raw_bytes(&[b"x"]);
    let huge = u32::MAX.to_le_bytes();
    let cases: Vec<(InferInputTensor, Bytes, &str, &str)> = vec![
        (tensor("img", "BYTES", &[1]), one(), "inputs[0].name", "image or pixels"),
        (tensor("image", "UINT8", &[1]), one(), "inputs[0].datatype", "pixels"),
        (tensor("pixels", "FP32", &[1, 1, 1, 3]), one(), "inputs[0].datatype", "normalises"),
        (image(&[1, 2]), one(), "inputs[0].shape", "[n, 1]"),
        (image(&[]), one(), "inputs[0].shape", "[n, 1]"),
        (image(&[0]), Bytes::new(), "inputs[0].shape[0]", "1 to 4"),
        (image(&[-1]), one(), "inputs[0].shape[0]", "1 to 4"),
        (image(&[5]), one(), "inputs[0].shape[0]", "max_images_per_request"),
        (image(&[i64::MAX]), one(), "inputs[0].shape[0]", "1 to 4"),
        (image(&[2]), one(), "raw_input_contents[0]", "element 1"),
        (image(&[1]), Bytes::from_static(b"\0\0"), "raw_input_contents[0]", "2 are left"),
        (image(&[1]), Bytes::copy_from_slice(&huge), "raw_input_contents[0]", "4294967295"),
        (image(&[1]), raw_bytes(&[b"x", b"y"]), "raw_input_contents[0]", "5 bytes after"),
        (tensor("pixels", "UINT8", &[1, 2, 2]), one(), "inputs[0].shape", "width, 3"),
        (tensor("pixels", "UINT8", &[1, 2, 2, 4]), one(), "inputs[0].shape", "width, 3"),
        (tensor("pixels", "UINT8", &[1, 0, 2, 3]), one(), "inputs[0].shape[1]", "0"),
        (tensor("pixels", "UINT8", &[1, 2, 1 << 40, 3]), one(), "inputs[0].shape[2]", "pixels"),
        (tensor("pixels", "UINT8", &[1, 2, 2, 3]), one(), "raw_input_contents[0]", "needs 12"),
        (tensor("pixels", "UINT8", &[4, 4_294_967_295, 4_294_967_295, 3]), one(), "raw_input_contents[0]", "2^64"),
    ];
    for (input, raw, field, words) in cases {
        let error = read(input, raw).unwrap_err();
        assert_eq!(error.field(), Some(field), "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[test]
fn a_request_holds_one_input_in_one_form() {
    let image = || tensor("image", "BYTES", &[1]);
    let field = |inputs, raw| Images::read(inputs, raw, 4).unwrap_err().field().map(str::to_owned);
    assert_eq!(field(vec![], vec![]).as_deref(), Some("inputs"));
    assert_eq!(field(vec![image(), image()], vec![]).as_deref(), Some("inputs[1].name"));
    let typed = InferInputTensor { contents: Some(InferTensorContents::default()), ..image() };
    assert_eq!(field(vec![typed.clone()], vec![Bytes::new()]).as_deref(), Some("inputs[0].contents"));
    assert_eq!(field(vec![typed], vec![]).as_deref(), Some("inputs[0].contents.bytes_contents"));
    assert_eq!(field(vec![image()], vec![Bytes::new(), Bytes::new()]).as_deref(), Some("raw_input_contents"));
}

proptest! {
    /// Any bytes under any shape give images or an error, and images hold no byte that did not come.
    #[test]
    fn no_contents_break_the_reader(
        is_image in any::<bool>(),
        shape in prop::collection::vec(prop_oneof![-2i64..6, Just(i64::MAX), Just(i64::MIN)], 0..5),
        contents in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let (name, datatype) = if is_image { ("image", "BYTES") } else { ("pixels", "UINT8") };
        if let Ok(images) = read(tensor(name, datatype, &shape), contents.clone().into()) {
            prop_assert!(files(&images).iter().map(|file| file.len()).sum::<usize>() <= contents.len());
        }
    }
}
