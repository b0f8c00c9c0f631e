//! Where the known data sets keep images and labels.
//!
//! # Design
//! A layout is a row of a table and not code: folders, endings, a list of names where there is one, a table of classes.

use std::{
    fs,
    path::{Path, PathBuf},
};

use densevit::manifest::ClassSpec;

use crate::segmentation::data::{DataError, classes::Classes};

/// An image and its labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The image.
    pub image: PathBuf,
    /// PNG of one value a pixel.
    pub labels: PathBuf,
}

/// A split of a data set, in alphabetical order.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// Its classes.
    pub classes: Classes,
    /// Its images.
    pub samples: Vec<Sample>,
}

/// A way to lay out a data set. `{split}` stands for the name of a split.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// For the command line.
    pub name: &'static str,
    /// Name of the split to learn from.
    pub train: &'static str,
    /// Name of the split to measure on.
    pub validation: &'static str,
    /// File with a name a line; where there is none, all images of the folder count.
    list: Option<&'static str>,
    /// Folder of the images, and what their names end with before the extension.
    images: (&'static str, &'static str),
    /// Folder of the labels, and with what their names may end.
    labels: (&'static str, &'static [&'static str]),
    /// Table of classes; none means `classes.toml` beside the folders.
    classes: Option<&'static str>,
}

/// File extensions of images.
const EXTENSIONS: [&str; 6] = ["jpg", "jpeg", "png", "webp", "bmp", "tif"];
/// The generic layout's table of classes.
const CLASSES: &str = "classes.toml";

const PLAIN: Layout = Layout {
    name: "generic",
    train: "train",
    validation: "val",
    list: None,
    images: ("images/{split}", ""),
    labels: ("masks/{split}", &[".png"]),
    classes: None,
};

/// All known layouts.
pub const LAYOUTS: [Layout; 10] = [
    PLAIN,
    Layout {
        name: "camvid",
        labels: ("annotations/{split}", &[".png"]),
        classes: Some(include_str!("classes/camvid.toml")),
        ..PLAIN
    },
    Layout {
        name: "ade20k",
        train: "training",
        validation: "validation",
        labels: ("annotations/{split}", &[".png"]),
        classes: Some(include_str!("classes/ade20k.toml")),
        ..PLAIN
    },
    Layout {
        name: "voc",
        list: Some("ImageSets/Segmentation/{split}.txt"),
        images: ("JPEGImages", ""),
        labels: ("SegmentationClass", &[".png"]),
        classes: Some(include_str!("classes/voc.toml")),
        ..PLAIN
    },
    Layout {
        name: "voc-own",
        list: Some("ImageSets/Segmentation/{split}.txt"),
        images: ("JPEGImages", ""),
        labels: ("SegmentationClass", &[".png"]),
        ..PLAIN
    },
    Layout {
        name: "pascal-context",
        list: Some("ImageSets/SegmentationContext/{split}.txt"),
        images: ("JPEGImages", ""),
        labels: ("SegmentationClassContext", &[".png"]),
        classes: Some(include_str!("classes/pascal_context.toml")),
        ..PLAIN
    },
    Layout {
        name: "coco-stuff-10k",
        train: "train2014",
        validation: "test2014",
        labels: ("annotations/{split}", &["_labelTrainIds.png", ".png"]),
        classes: Some(include_str!("classes/coco_stuff_10k.toml")),
        ..PLAIN
    },
    Layout {
        name: "coco-stuff-27",
        train: "train2017",
        validation: "val2017",
        list: Some("curated/{split}/Coco164kFull_Stuff_Coarse.txt"),
        images: ("dataset/images/{split}", ""),
        labels: ("dataset/annotations/{split}", &[".png"]),
        classes: Some(include_str!("classes/coco_stuff_27.toml")),
    },
    Layout {
        name: "cityscapes",
        images: ("leftImg8bit/{split}", "_leftImg8bit"),
        labels: ("gtFine/{split}", &["_gtFine_labelIds.png"]),
        classes: Some(include_str!("classes/cityscapes.toml")),
        ..PLAIN
    },
    Layout {
        name: "cityscapes-train-ids",
        images: ("leftImg8bit/{split}", "_leftImg8bit"),
        labels: ("gtFine/{split}", &["_gtFine_labelTrainIds.png"]),
        classes: Some(include_str!("classes/cityscapes_train_ids.toml")),
        ..PLAIN
    },
];

impl std::str::FromStr for Layout {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        LAYOUTS
            .into_iter()
            .find(|layout| layout.name == text)
            .ok_or_else(|| format!("\"{text}\" is no layout; known are {}", LAYOUTS.map(|layout| layout.name).join(", ")))
    }
}

impl Layout {
    /// The layout of a data set with these classes; the generic one if none has them.
    #[must_use]
    pub fn of_classes(classes: &[ClassSpec]) -> Self {
        let has = |layout: &Self| {
            let table = layout.classes.map(|text| Classes::parse(text, Path::new(layout.name)));
            table.is_some_and(|table| table.is_ok_and(|table| table.list() == classes))
        };
        LAYOUTS.into_iter().find(has).unwrap_or(PLAIN)
    }

    /// Finds the images of a split and their labels.
    ///
    /// # Errors
    /// [`DataError`]: no such folder or list, no image in it, an image without labels, a table of classes that cannot be used.
    pub fn read(&self, root: &Path, split: &str) -> Result<Dataset, DataError> {
        let place = |template: &str| root.join(template.replace("{split}", split));
        let (images, labels) = (place(self.images.0), place(self.labels.0));
        let list = self.list.map(place).filter(|list| list.is_file() || !self.images.0.contains("{split}"));
        let mut samples = Vec::new();
        for (id, image) in list.as_deref().map_or_else(|| self.search(&images), |list| self.listed(list, &images))? {
            let files: Vec<PathBuf> = self.labels.1.iter().map(|ending| labels.join(format!("{id}{ending}"))).collect();
            let Some(found) = files.iter().find(|file| file.is_file()) else {
                return Err(DataError::NoLabels { image, labels: files.into_iter().next().unwrap_or_default() });
            };
            samples.push(Sample { image, labels: found.clone() });
        }
        if samples.is_empty() {
            return Err(DataError::Empty { split: split.to_owned(), path: list.unwrap_or(images) });
        }
        samples.sort_by(|a, b| a.image.cmp(&b.image));
        Ok(Dataset { classes: self.classes(root)?, samples })
    }

    fn classes(&self, root: &Path) -> Result<Classes, DataError> {
        let path = root.join(CLASSES);
        let Some(text) = self.classes else {
            let text = fs::read_to_string(&path).map_err(|source| DataError::Read { path: path.clone(), source })?;
            return Classes::parse(&text, &path);
        };
        Classes::parse(text, &path)
    }

    /// Names and images of a list.
    fn listed(&self, list: &Path, images: &Path) -> Result<Vec<(String, PathBuf)>, DataError> {
        let text = fs::read_to_string(list).map_err(|source| DataError::Read { path: list.to_path_buf(), source })?;
        let ids = text.lines().filter_map(|line| line.split_whitespace().next());
        let find = |id: &str| {
            let files = EXTENSIONS.iter().map(|extension| images.join(format!("{id}{}.{extension}", self.images.1)));
            let found = files.into_iter().find(|file| file.is_file());
            let missing = || DataError::NoImage { list: list.to_path_buf(), id: id.to_owned(), folder: images.to_path_buf() };
            Ok((id.to_owned(), found.ok_or_else(missing)?))
        };
        ids.map(find).collect()
    }

    /// Names, with the folders between, and images below a folder.
    fn search(&self, images: &Path) -> Result<Vec<(String, PathBuf)>, DataError> {
        let mut files = Vec::new();
        collect(images, &mut files)?;
        let id = |file: &Path| {
            let extension = file.extension()?.to_str()?.to_ascii_lowercase();
            EXTENSIONS.contains(&extension.as_str()).then_some(())?;
            let within = file.strip_prefix(images).ok()?.with_extension("");
            Some(within.to_str()?.strip_suffix(self.images.1)?.to_owned())
        };
        Ok(files.into_iter().filter_map(|file| Some((id(&file)?, file))).collect())
    }
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), DataError> {
    let failed = |source| DataError::Read { path: folder.to_path_buf(), source };
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn every_known_table_of_classes_can_be_read() {
        let counts: Vec<(&str, usize)> = LAYOUTS
            .iter()
            .filter_map(|layout| Some((layout.name, Classes::parse(layout.classes?, Path::new(layout.name)).unwrap().len())))
            .collect();
        let expected = [
            ("camvid", 11),
            ("ade20k", 150),
            ("voc", 21),
            ("pascal-context", 60),
            ("coco-stuff-10k", 171),
            ("coco-stuff-27", 27),
            ("cityscapes", 19),
            ("cityscapes-train-ids", 19),
        ];
        assert_eq!(counts, expected);
    }
}
