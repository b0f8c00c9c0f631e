//! NumPy's `.npy` format, version 1.0 (`numpy.lib.format`).

use std::path::Path;

use crate::arrays::{ArrayError, ArrayRef, ElementType, write_atomically};

/// The header is padded so that the data begin at a multiple of this.
const ALIGNMENT: usize = 64;

/// Writes one array.
///
/// # Errors
/// [`ArrayError::Write`]; no partial file is left.
pub fn write_npy(path: &Path, array: &ArrayRef<'_>) -> Result<(), ArrayError> {
    let written = write_atomically(path, &[&header(array), array.data]);
    written.map_err(|source| ArrayError::Write { path: path.to_path_buf(), source })
}

fn header(array: &ArrayRef<'_>) -> Vec<u8> {
    let descr = match array.element_type {
        ElementType::F32 => "<f4",
        ElementType::F16 => "<f2",
        ElementType::I8 => "|i1",
    };
    let shape: String = array.shape.iter().map(|extent| format!("{extent}, ")).collect();
    // A tuple of one needs its comma, longer ones do not.
    let shape = if array.shape.len() == 1 { shape.trim_end() } else { shape.trim_end_matches(", ") };
    let dict = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}), }}");
    let preamble = 10;
    let length = (preamble + dict.len() + 1).next_multiple_of(ALIGNMENT) - preamble;
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    header.extend_from_slice(&u16::try_from(length).unwrap_or(u16::MAX).to_le_bytes());
    header.extend_from_slice(format!("{dict:<width$}\n", width = length - 1).as_bytes());
    header
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn files_are_byte_for_byte_those_of_numpy() {
        // numpy.save of numpy.arange(6, dtype="<f4").reshape(1, 2, 3), NumPy 2.4.
        let expected: &[u8] = include_bytes!("../../tests/fixtures/arrays/arange_1x2x3_f4.npy");
        let data: Vec<u8> = (0..6u8).flat_map(|value| f32::from(value).to_le_bytes()).collect();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npy");
        write_npy(&path, &ArrayRef { element_type: ElementType::F32, shape: vec![1, 2, 3], data: &data }).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), expected);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn a_folder_that_is_not_there_is_an_error_with_the_path() {
        let path = Path::new("/nonexistent/a.npy");
        let error = write_npy(path, &ArrayRef { element_type: ElementType::I8, shape: vec![0], data: &[] }).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/a.npy"), "{error}");
    }
}
