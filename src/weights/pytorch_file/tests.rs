//! Files of PyTorch against the same tensors in safetensors (tests/reference/make_pth.py), and files that are damaged.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    fs,
    io::{Cursor, Write as _},
    path::PathBuf,
};

use ndarray::ArrayD;
use proptest::prelude::*;
use zip::{ZipWriter, write::SimpleFileOptions};

use super::*;
use crate::weights;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/pth").join(name)
}

/// Reads `bytes` as a file and takes every tensor, so that what lies in it is looked at too.
fn read_all(bytes: &[u8]) -> Result<Vec<(String, ArrayD<f32>)>, WeightsError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.pth");
    fs::write(&path, bytes).unwrap();
    let mut tensors = weights::read(&path)?;
    let names: Vec<String> = tensors.names().map(str::to_owned).collect();
    Ok(names.into_iter().filter_map(|name| tensors.take(&name).ok().map(|tensor| (name, tensor))).collect())
}

/// `kinds.pth` with other bytes in its pickle, and checksums that fit them.
fn with_pickle(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut archive = ZipArchive::new(File::open(fixture("kinds.pth")).unwrap()).unwrap();
    let mut change = Some(change);
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for idx in 0..archive.len() {
        let mut entry = archive.by_index(idx).unwrap();
        let name = entry.name().unwrap().into_owned();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        if name.ends_with(PICKLE_FILE) {
            change.take().unwrap()(&mut bytes);
        }
        writer.start_file(name, SimpleFileOptions::default()).unwrap();
        writer.write_all(&bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

fn replace(pickle: &mut Vec<u8>, old: &[u8], new: &[u8]) {
    let at = pickle.windows(old.len()).position(|window| window == old).unwrap();
    pickle.splice(at..at + old.len(), new.iter().copied());
}

#[test]
fn every_type_and_view_has_the_values_that_pytorch_gives_it() {
    for name in ["kinds", "vit", "lift"] {
        let mut expected = weights::read(&fixture(&format!("{name}.safetensors"))).unwrap();
        let mut tensors = read(&fixture(&format!("{name}.pth"))).unwrap();
        let prefix = match name {
            "vit" => "teacher.backbone.",
            "lift" => "state_dict.module.",
            _ => "",
        };
        let names: Vec<String> = expected.names().map(str::to_owned).collect();
        assert!(names.len() >= 14, "{names:?}");
        for name in names {
            let got = format!("{prefix}{name}");
            assert_eq!(tensors.shape(&got), expected.shape(&name), "{got}");
            match expected.take(&name) {
                Ok(values) => assert_eq!(tensors.take(&got).unwrap(), values, "{got}"),
                Err(error) => assert_eq!(tensors.take(&got).unwrap_err().to_string(), error.to_string().replace(&name, &got)),
            }
        }
        // What is left: integers, and what lies beside the state dict.
        let left: Vec<&str> = tensors.names().collect();
        assert!(
            left.iter().all(|name| name.contains(".count.") || name.starts_with("student") || *name == "teacher.head.last"),
            "{left:?}"
        );
    }
}

#[test]
fn what_is_no_state_dict_is_refused_with_its_name_and_a_way_out() {
    for (name, words) in [
        ("namespace.pth", ["holds argparse.Namespace,", "torch.save(torch.load("]),
        ("command.pth", ["holds posix.system,", "if you trust the file"]),
        ("module.pth", ["holds torch.nn.modules.linear.Linear,", "state dict alone"]),
        ("protocol4.pth", ["is not pickled in protocol 2", "torch.save"]),
        ("legacy.pth", ["is no zip archive", "weights_only=True"]),
        ("kinds.safetensors", ["is no zip archive", "weights_only=True"]),
    ] {
        let error = read(&fixture(name)).unwrap_err().to_string();
        assert!(error.contains(name) && words.iter().all(|word| error.contains(word)), "{error}");
    }
    assert!(matches!(read(&fixture("nowhere.pth")), Err(WeightsError::Read { .. })));
    assert!(read_all(b"").unwrap_err().to_string().contains("is no zip archive"));
}

#[test]
fn archives_with_no_pickle_or_two_are_refused() {
    for names in [vec!["a/version"], vec!["a/data.pkl", "b/data.pkl"]] {
        let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
        names.iter().for_each(|name| writer.start_file(*name, SimpleFileOptions::default()).unwrap());
        let error = read_all(&writer.finish().unwrap().into_inner()).unwrap_err().to_string();
        assert!(error.contains("more than one, data.pkl"), "{error}");
    }
}

#[test]
fn sizes_are_held_against_the_file() {
    assert_eq!(read_all(&with_pickle(|_pickle| ())).unwrap().len(), 14, "the unchanged file is read");
    // `expanded`, [4, 3] with strides [0, 1]: as [2 ^ 30, 3] it would take 12 GiB.
    let error = read_all(&with_pickle(|pickle| replace(pickle, b"K\x04K\x03\x86", b"J\0\0\0\x40K\x03\x86"))).unwrap_err();
    assert!(error.to_string().contains("bytes"), "{error}");
    // As [2 ^ 16, 3] the crate reads it, 0.8 MB out of 6 KB.
    let error = read_all(&with_pickle(|pickle| replace(pickle, b"K\x04K\x03\x86", b"J\0\0\x01\0K\x03\x86"))).unwrap_err();
    assert!(error.to_string().contains("would unfold into"), "{error}");
    // As [40, 3] with a stride of 1 it ends behind its storage.
    let error = read_all(&with_pickle(|pickle| replace(pickle, b"K\0K\x01\x86", b"K\x01K\x01\x86"))).unwrap_err();
    assert!(error.to_string().contains("storage"), "{error}");
}

#[test]
fn a_file_that_was_cut_short_is_refused() {
    let bytes = fs::read(fixture("kinds.pth")).unwrap();
    for length in (0..bytes.len()).step_by(7) {
        assert!(read_all(&bytes[..length]).is_err(), "{length}");
    }
    let mut pickle_length = 0;
    with_pickle(|pickle| pickle_length = pickle.len());
    for length in (0..pickle_length).step_by(7) {
        assert!(read_all(&with_pickle(|pickle| pickle.truncate(length))).is_err(), "{length}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Whatever was changed, an answer comes: tensors or an error.
    #[test]
    fn changed_bytes_never_panic(
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6), in_pickle: bool,
    ) {
        let change = |bytes: &mut Vec<u8>| flips.iter().for_each(|(at, byte)| *at.get_mut(bytes) = *byte);
        let mut bytes = fs::read(fixture("kinds.pth")).unwrap();
        if in_pickle {
            bytes = with_pickle(change);
        } else {
            change(&mut bytes);
        }
        drop(read_all(&bytes));
    }
}
