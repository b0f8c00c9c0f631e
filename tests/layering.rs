//! The house rules that a compiler does not check: imports point one way, each engine stays in its own folder, files stay short.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

/// Lines of a file, without its tests.
const MAX_LINES: usize = 400;

/// A source file: its top-level module, and its text without `#[cfg(test)]` parts and comments.
struct Source {
    path: PathBuf,
    module: String,
    code: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    collect(&root, &mut paths);
    // The trainer is a package of its own, and these two files are the list of modules and the thin entry.
    let is_module = |path: &PathBuf| !["train", "lib.rs", "main.rs"].iter().any(|name| path.starts_with(root.join(name)));
    let is_test = |path: &PathBuf| path.file_name().is_some_and(|name| name == "tests.rs");
    let source = |path: PathBuf| {
        let first = path.strip_prefix(&root).unwrap().components().next().unwrap();
        let module = Path::new(first.as_os_str()).file_stem().unwrap().to_str().unwrap().to_owned();
        let code = without_tests(&fs::read_to_string(&path).unwrap());
        Source { path, module, code }
    };
    paths.into_iter().filter(|path| is_module(path) && !is_test(path)).map(source).collect()
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
}

fn without_tests(text: &str) -> String {
    let code = text.split("\n#[cfg(test)]\nmod tests").next().unwrap_or_default();
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// First names after `crate::`, in `crate::a::B` and in `crate::{a::B, c}`.
fn imported_modules(code: &str) -> Vec<String> {
    let name =
        |text: &str| text.chars().take_while(|character| character.is_alphanumeric() || *character == '_').collect::<String>();
    let mut modules = Vec::new();
    for after in code.split("crate::").skip(1) {
        let Some(group) = after.strip_prefix('{') else {
            modules.push(name(after));
            continue;
        };
        let mut depth = 0;
        let mut is_start = true;
        for (at, character) in group.char_indices() {
            match character {
                '}' if depth == 0 => break,
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => is_start = true,
                _ if is_start && character.is_alphabetic() => {
                    modules.push(name(&group[at..]));
                    is_start = false;
                }
                _ => {}
            }
        }
    }
    modules
}

#[test]
fn groups_and_paths_of_imports_are_both_read() {
    let code = "use crate::{\n    a::{B, c::D},\n    e,\n};\nlet x = crate::f::g();";
    assert_eq!(imported_modules(code), ["a", "e", "f"]);
}

#[test]
fn imports_point_to_modules_that_stand_above() {
    let lib = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    let names = lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    let order: HashMap<&str, usize> = names.enumerate().map(|(idx, name)| (name, idx)).collect();
    let mut upward = Vec::new();
    for source in sources() {
        let own = order[source.module.as_str()];
        for module in imported_modules(&source.code) {
            let Some(other) = order.get(module.as_str()) else { continue };
            if *other > own {
                upward.push(format!("{} uses {module}", source.path.display()));
            }
        }
    }
    assert!(upward.is_empty(), "imports point up:\n{}", upward.join("\n"));
}

#[test]
fn each_engine_stays_in_its_folder() {
    // A crate, and the modules that may name it.
    let homes: [(&str, &[&str]); 7] = [
        ("ort::", &["runtime"]),
        ("tonic", &["grpc"]),
        ("prost", &["grpc", "onnx"]),
        ("opentelemetry", &["telemetry"]),
        ("tracing_opentelemetry", &["telemetry"]),
        ("anyhow", &["commands"]),
        ("println!", &["commands"]),
    ];
    let uses = |code: &str, word: &str| {
        let is_boundary = |at: usize| !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':' || c == '"');
        code.match_indices(word).any(|(at, _)| is_boundary(at))
    };
    let mut strays = Vec::new();
    for source in sources() {
        for (word, modules) in homes {
            if !modules.contains(&source.module.as_str()) && uses(&source.code, word) {
                strays.push(format!("{} names {word}", source.path.display()));
            }
        }
    }
    assert!(strays.is_empty(), "{}", strays.join("\n"));
}

#[test]
fn files_are_short_enough_to_be_read_at_once() {
    let long = |source: &Source| source.code.lines().count() > MAX_LINES;
    let long: Vec<String> =
        sources().iter().filter(|source| long(source)).map(|source| source.path.display().to_string()).collect();
    assert!(long.is_empty(), "over {MAX_LINES} lines: {}", long.join(", "));
}
