//! Labelled images of known layouts into training examples: found ([`layout`]), their values read as classes ([`labels`], [`classes`]),
//! scaled, cropped and coloured ([`view`], [`distortion`], [`recipe`]), written and read ([`example`]).

pub mod classes;
pub mod labels;
pub mod layout;

pub mod distortion;
pub mod view;

pub mod recipe;

pub mod example;

use std::{io, path::PathBuf};

use thiserror::Error;

/// What can be wrong with a data set.
#[derive(Debug, Error)]
pub enum DataError {
    /// A file or folder cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A table of classes cannot be used.
    #[error("{path}: {problem}")]
    Classes {
        /// Where it stands.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A split has no images.
    #[error("the split \"{split}\" holds no images: {path} has none")]
    Empty {
        /// Its name.
        split: String,
        /// Where they should be.
        path: PathBuf,
    },
    /// An image of a list is not there.
    #[error("{list} names {id}, but there is no such image in {folder}")]
    NoImage {
        /// The list.
        list: PathBuf,
        /// What it names.
        id: String,
        /// Where it should be.
        folder: PathBuf,
    },
    /// An image has no labels.
    #[error("{image} has no labels: {labels} is not there")]
    NoLabels {
        /// The image.
        image: PathBuf,
        /// Where they should be.
        labels: PathBuf,
    },
    /// An image cannot be decoded.
    #[error("{path}: it {problem}")]
    Image {
        /// The image.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// Labels are no map of values.
    #[error("{path}: {problem}")]
    Labels {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A value is none of the classes.
    #[error("{path} holds label {value} at row {row}, column {col}, which is neither a class nor ignored")]
    Value {
        /// The file.
        path: PathBuf,
        /// The value.
        value: u16,
        /// Where it was first seen.
        row: usize,
        /// Where it was first seen.
        col: usize,
    },
    /// Image and labels are of different size.
    #[error("{labels} has {got:?} rows and columns, {image} has {expected:?}")]
    Size {
        /// The labels.
        labels: PathBuf,
        /// The image.
        image: PathBuf,
        /// Rows and columns of the labels.
        got: [u32; 2],
        /// Rows and columns of the image.
        expected: [u32; 2],
    },
}
