//! The images of a request: files as BYTES, or pixels as UINT8, raw or typed. Contents are slices of the message: nothing is copied.

use bytes::{Buf as _, Bytes};

use crate::{
    engine::{ImageSource, InferError},
    grpc::{
        kserve::{datatype::Datatype, outputs::TensorSpec},
        pb::inference::{InferTensorContents, model_infer_request::InferInputTensor},
    },
};

/// Input of image files.
pub(super) const IMAGE: &str = "image";
/// Input of pixels.
pub(super) const PIXELS: &str = "pixels";
/// Path of raw contents.
const RAW: &str = "raw_input_contents[0]";
/// Bytes before each element of raw BYTES that hold its length.
const LENGTH_BYTES: usize = size_of::<u32>();

/// The images of a request, and where in it they came from.
#[derive(Debug)]
pub(super) struct Images {
    pub(super) sources: Vec<ImageSource>,
    place: Place,
}

/// Where the elements of the one input are.
#[derive(Clone, Copy, Debug)]
enum Place {
    Raw,
    TypedBytes,
    TypedUints,
}

/// Elements of the one input.
enum Contents {
    Raw(Bytes),
    Typed(InferTensorContents),
}

/// Every model's inputs; a request holds one of them.
pub(super) fn specs() -> [TensorSpec; 2] {
    [
        TensorSpec { name: IMAGE, datatype: Datatype::Bytes, dims: vec![1] },
        TensorSpec { name: PIXELS, datatype: Datatype::Uint8, dims: vec![-1, -1, 3] },
    ]
}

impl Images {
    /// Reads the images of a request.
    ///
    /// # Errors
    /// [`InferError::InvalidArgument`] with the path of what does not fit: names, element types, shapes, lengths.
    pub(super) fn read(inputs: Vec<InferInputTensor>, raw: Vec<Bytes>, max_images: usize) -> Result<Self, InferError> {
        check_names(&inputs)?;
        check_forms(&inputs, &raw)?;
        let Some(input) = inputs.into_iter().next() else {
            return Err(InferError::invalid("inputs", format!("is required: {IMAGE} or {PIXELS}")));
        };
        let InferInputTensor { name, datatype, shape, parameters: _, contents } = input;
        let typed = || Contents::Typed(contents.unwrap_or_default());
        let contents = raw.into_iter().next().map_or_else(typed, Contents::Raw);
        let tensor = Tensor { datatype, shape, max_images };
        if name == IMAGE { tensor.files(contents) } else { tensor.pixels(contents) }
    }

    /// An error of one image, in the terms of the request.
    pub(super) fn error(&self, idx: usize, message: &str) -> InferError {
        let is_one_of_many = self.sources.len() > 1;
        let message = if is_one_of_many { format!("image {idx} {message}") } else { message.to_owned() };
        InferError::invalid(self.place.path(idx), message)
    }
}

impl Place {
    fn path(self, element: usize) -> String {
        match self {
            Self::Raw => RAW.to_owned(),
            Self::TypedBytes => format!("inputs[0].contents.bytes_contents[{element}]"),
            Self::TypedUints => "inputs[0].contents.uint_contents".to_owned(),
        }
    }
}

/// An input before its contents are read.
struct Tensor {
    datatype: String,
    shape: Vec<i64>,
    max_images: usize,
}

impl Tensor {
    fn files(self, contents: Contents) -> Result<Images, InferError> {
        self.check_datatype(Datatype::Bytes, IMAGE)?;
        let n_images = match self.shape[..] {
            [n] | [n, 1] => self.n_images(n)?,
            _ => return Err(self.wrong_shape("[n] or [n, 1], one file an element")),
        };
        let (files, place) = match contents {
            Contents::Raw(raw) => (split(raw, n_images)?, Place::Raw),
            Contents::Typed(typed) => (typed.bytes_contents, Place::TypedBytes),
        };
        if files.len() != n_images {
            let message = format!("has {} elements, the shape {:?} needs {n_images}", files.len(), self.shape);
            return Err(InferError::invalid("inputs[0].contents.bytes_contents", message));
        }
        Ok(Images { sources: files.into_iter().map(ImageSource::Encoded).collect(), place })
    }

    fn pixels(self, contents: Contents) -> Result<Images, InferError> {
        self.check_datatype(Datatype::Uint8, PIXELS)?;
        let [n, height, width, 3] = self.shape[..] else {
            return Err(self.wrong_shape("[n, height, width, 3]"));
        };
        let n_images = self.n_images(n)?;
        let (height, width) = (self.side(1, height)?, self.side(2, width)?);
        let (pixels, place) = match contents {
            Contents::Raw(raw) => (raw, Place::Raw),
            Contents::Typed(typed) => (narrowed(&typed.uint_contents)?, Place::TypedUints),
        };
        let expected = u64::from(height).checked_mul(u64::from(width) * 3).and_then(|image| image.checked_mul(n_images as u64));
        if expected != Some(pixels.len() as u64) {
            let needed = expected.map_or_else(|| "more than 2^64".to_owned(), |bytes| bytes.to_string());
            let message = format!("has {} bytes, the shape {:?} of UINT8 needs {needed}", pixels.len(), self.shape);
            return Err(InferError::invalid(place.path(0), message));
        }
        let n_bytes = pixels.len() / n_images;
        let image = |idx| ImageSource::Raw { height, width, data: pixels.slice(idx * n_bytes..(idx + 1) * n_bytes) };
        Ok(Images { sources: (0..n_images).map(image).collect(), place })
    }

    fn check_datatype(&self, expected: Datatype, name: &str) -> Result<(), InferError> {
        if self.datatype == expected.name() {
            return Ok(());
        }
        let advice = match self.datatype.as_str() {
            "UINT8" => "; 8-bit pixels go to the input \"pixels\"",
            "BYTES" => "; files go to the input \"image\"",
            "FP32" | "FP16" | "FP64" | "BF16" => "; the model normalises 8-bit RGB itself",
            _ => "",
        };
        let message = format!("\"{}\" is not the element type of {name}, {}{advice}", self.datatype, expected.name());
        Err(InferError::invalid("inputs[0].datatype", message))
    }

    fn n_images(&self, n: i64) -> Result<usize, InferError> {
        let max = self.max_images;
        let in_range = usize::try_from(n).ok().filter(|n| (1..=max).contains(n));
        in_range.ok_or_else(|| {
            let message = format!("{n} images, allowed are 1 to {max} (limits.max_images_per_request)");
            InferError::invalid("inputs[0].shape[0]", message)
        })
    }

    fn side(&self, axis: usize, pixels: i64) -> Result<u32, InferError> {
        let in_range = u32::try_from(pixels).ok().filter(|pixels| *pixels > 0);
        in_range.ok_or_else(|| {
            let message = format!("{pixels} is no number of pixels");
            InferError::invalid(format!("inputs[0].shape[{axis}]"), message)
        })
    }

    fn wrong_shape(&self, expected: &str) -> InferError {
        InferError::invalid("inputs[0].shape", format!("{:?} is not {expected}", self.shape))
    }
}

/// Takes raw BYTES apart.
fn split(mut raw: Bytes, n_images: usize) -> Result<Vec<Bytes>, InferError> {
    let failed = |message: String| InferError::invalid(RAW, message);
    let mut files = Vec::with_capacity(n_images);
    for element in 0..n_images {
        if raw.len() < LENGTH_BYTES {
            return Err(failed(format!(
                "ends before the length of element {element}: {LENGTH_BYTES} bytes are needed, {} are left",
                raw.len()
            )));
        }
        let n_bytes = raw.get_u32_le() as usize;
        if raw.len() < n_bytes {
            let message = format!("element {element} has {n_bytes} bytes by its length, {} are left", raw.len());
            return Err(failed(message));
        }
        files.push(raw.split_to(n_bytes));
    }
    if !raw.is_empty() {
        return Err(failed(format!("has {} bytes after its {n_images} elements", raw.len())));
    }
    Ok(files)
}

/// Typed pixels, a number each, as bytes.
fn narrowed(values: &[u32]) -> Result<Bytes, InferError> {
    let narrow = |(at, value): (usize, &u32)| {
        u8::try_from(*value).map_err(|_large| {
            let field = format!("inputs[0].contents.uint_contents[{at}]");
            InferError::invalid(field, format!("{value} is no UINT8, at most 255"))
        })
    };
    values.iter().enumerate().map(narrow).collect::<Result<Vec<u8>, _>>().map(Bytes::from)
}

/// One input, `image` or `pixels`, without parameters.
fn check_names(inputs: &[InferInputTensor]) -> Result<(), InferError> {
    for (idx, InferInputTensor { name, parameters, .. }) in inputs.iter().enumerate() {
        let field = |part: &str| format!("inputs[{idx}].{part}");
        if ![IMAGE, PIXELS].contains(&name.as_str()) {
            return Err(InferError::invalid(field("name"), format!("\"{name}\" is no input: models take {IMAGE} or {PIXELS}")));
        }
        if idx > 0 {
            return Err(InferError::invalid(field("name"), format!("a request holds one input, {IMAGE} or {PIXELS}, once")));
        }
        if let Some(key) = parameters.keys().min() {
            let message = "is not known: tensors travel in the message, and settings are parameters of the request";
            return Err(InferError::invalid(field(&format!("parameters.{key}")), message));
        }
    }
    Ok(())
}

/// Raw contents for all inputs, or typed ones.
fn check_forms(inputs: &[InferInputTensor], raw: &[Bytes]) -> Result<(), InferError> {
    if raw.is_empty() {
        return Ok(());
    }
    if let Some(idx) = inputs.iter().position(|input| input.contents.is_some()) {
        let message = "cannot be set together with raw_input_contents";
        return Err(InferError::invalid(format!("inputs[{idx}].contents"), message));
    }
    if raw.len() != inputs.len() {
        let message = format!("has {} entries for {} inputs", raw.len(), inputs.len());
        return Err(InferError::invalid("raw_input_contents", message));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
