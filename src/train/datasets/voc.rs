//! Boxes in the layout of PASCAL VOC 2007 and 2012: `JPEGImages/ID.jpg`, `Annotations/ID.xml`, `ImageSets/Main/SPLIT.txt`.
//!
//! # Design
//! Of XML the files use elements with text and nothing else, which a search for tags reads; a parser would be one more dependency for
//! seven names of elements. Corners are counted from 1 and belong to the box; here they are continuous: `(xmin - 1, ymin - 1, xmax, ymax)`.

use std::{fmt::Write as _, path::Path, str::FromStr};

use anyhow::{Context as _, anyhow, ensure};

use crate::datasets::{BoxedImage, Corners, read_text};

/// An object of an image.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// What it is.
    pub category: String,
    /// Its box.
    pub corners: Corners,
    /// Whether the image shows only a part of it.
    pub is_truncated: bool,
    /// Whether it is hard to see what it is.
    pub is_difficult: bool,
}

/// `Annotations/ID.xml`.
#[derive(Clone, Debug, PartialEq)]
pub struct Annotation {
    /// File name of the image.
    pub filename: String,
    /// Rows and columns of the image.
    pub size: [u32; 2],
    /// Its objects.
    pub objects: Vec<Object>,
}

impl Annotation {
    /// The file.
    #[must_use]
    pub fn to_xml(&self) -> String {
        let [height, width] = self.size;
        let mut xml = format!(
            "<annotation>\n  <folder>composed</folder>\n  <filename>{}</filename>\n  <size>\n    <width>{width}</width>\n    \
             <height>{height}</height>\n    <depth>3</depth>\n  </size>\n  <segmented>1</segmented>\n",
            self.filename
        );
        for Object { category, corners: [x0, y0, x1, y1], is_truncated, is_difficult } in &self.objects {
            let (truncated, difficult) = (u8::from(*is_truncated), u8::from(*is_difficult));
            let (left, top) = (x0 + 1.0, y0 + 1.0);
            // Writing to a string does not fail.
            let _written = writeln!(
                xml,
                "  <object>\n    <name>{category}</name>\n    <pose>Unspecified</pose>\n    <truncated>{truncated}</truncated>\n    \
                 <difficult>{difficult}</difficult>\n    <bndbox>\n      <xmin>{left}</xmin>\n      <ymin>{top}</ymin>\n      \
                 <xmax>{x1}</xmax>\n      <ymax>{y1}</ymax>\n    </bndbox>\n  </object>"
            );
        }
        xml + "</annotation>\n"
    }

    /// Reads the file.
    ///
    /// # Errors
    /// What is missing or is no number.
    pub fn parse(xml: &str) -> anyhow::Result<Self> {
        let size = element(xml, "size").context("there is no <size>")?;
        let objects = elements(xml, "object").into_iter().map(Object::parse).collect::<anyhow::Result<_>>()?;
        Ok(Self {
            filename: element(xml, "filename").unwrap_or_default().to_owned(),
            size: [number(size, "height")?, number(size, "width")?],
            objects,
        })
    }
}

impl Object {
    fn parse(xml: &str) -> anyhow::Result<Self> {
        // Parts of people have boxes of their own.
        let behind_parts = xml.split("<part>").skip(1).filter_map(|after| Some(after.split_once("</part>")?.1));
        let own: String = xml.split("<part>").take(1).chain(behind_parts).collect();
        let bounds = element(&own, "bndbox").context("an <object> has no <bndbox>")?;
        let corner = |tag: &str| number::<f64>(bounds, tag);
        let is = |tag: &str| element(xml, tag).is_some_and(|text| text.trim() == "1");
        Ok(Self {
            category: element(xml, "name").context("an <object> has no <name>")?.trim().to_owned(),
            corners: [corner("xmin")? - 1.0, corner("ymin")? - 1.0, corner("xmax")?, corner("ymax")?],
            is_truncated: is("truncated"),
            is_difficult: is("difficult"),
        })
    }
}

/// The images of a split in the order of its list; `skip_hard` leaves out truncated and difficult objects.
///
/// # Errors
/// When the list or an annotation cannot be read, or the list is empty.
pub fn read(root: &Path, split: &str, skip_hard: bool) -> anyhow::Result<Vec<BoxedImage>> {
    let list = root.join("ImageSets/Main").join(format!("{split}.txt"));
    let text = read_text(&list)?;
    let ids: Vec<&str> = text.lines().filter_map(|line| line.split_whitespace().next()).collect();
    ensure!(!ids.is_empty(), "{} names no images", list.display());
    let image = |id: &str| {
        let path = root.join("Annotations").join(format!("{id}.xml"));
        let annotation = Annotation::parse(&read_text(&path)?).with_context(|| format!("reading {}", path.display()))?;
        let counts = |object: &Object| !(skip_hard && (object.is_truncated || object.is_difficult));
        let boxes = annotation.objects.iter().filter(|object| counts(object)).map(|object| object.corners).collect();
        Ok(BoxedImage { image: root.join("JPEGImages").join(format!("{id}.jpg")), boxes })
    };
    ids.into_iter().map(image).collect()
}

/// Contents of the first element of a name.
fn element<'a>(xml: &'a str, tag: &str) -> Option<&'a str> {
    let (_before, after) = xml.split_once(&format!("<{tag}>"))?;
    Some(after.split_once(&format!("</{tag}>"))?.0)
}

/// Contents of all elements of a name.
fn elements<'a>(xml: &'a str, tag: &str) -> Vec<&'a str> {
    let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
    xml.split(open.as_str()).skip(1).filter_map(|after| Some(after.split_once(close.as_str())?.0)).collect()
}

fn number<T: FromStr>(xml: &str, tag: &str) -> anyhow::Result<T> {
    let text = element(xml, tag).with_context(|| format!("there is no <{tag}>"))?.trim();
    text.parse().map_err(|_no_number| anyhow!("<{tag}> holds \"{text}\", which is no number"))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn object(corners: Corners) -> Object {
        Object { category: "bird".into(), corners, is_truncated: false, is_difficult: true }
    }

    #[test]
    fn annotations_come_back_as_they_were() {
        let annotation =
            Annotation { filename: "1.jpg".into(), size: [40, 60], objects: vec![object([0.0, 4.0, 10.0, 40.0]); 2] };
        let xml = annotation.to_xml();
        assert!(xml.contains("<xmin>1</xmin>") && xml.contains("<ymin>5</ymin>") && xml.contains("<xmax>10</xmax>"), "{xml}");
        assert_eq!(Annotation::parse(&xml).unwrap(), annotation);
    }

    #[test]
    fn boxes_of_parts_are_not_those_of_the_object() {
        let part = "<part><name>head</name><bndbox><xmin>7</xmin><ymin>7</ymin><xmax>8</xmax><ymax>8</ymax></bndbox></part>";
        let own = "<bndbox><xmin>1.5</xmin><ymin>2</ymin><xmax>30</xmax><ymax>40</ymax></bndbox>";
        let size = "<size><width>60</width><height>40</height></size>";
        for inside in [format!("{part}{own}{part}"), format!("{own}{part}"), format!("{part}{own}")] {
            let xml = format!("<annotation>{size}<object><name>person</name>{inside}</object></annotation>");
            assert_eq!(Annotation::parse(&xml).unwrap().objects[0].corners, [0.5, 1.0, 30.0, 40.0]);
        }
    }

    #[test]
    fn what_is_wrong_with_a_file_is_named() {
        let problem = |xml: &str| format!("{:#}", Annotation::parse(xml).unwrap_err());
        assert_eq!(problem("<annotation>"), "there is no <size>");
        let size = "<size><width>60</width><height>x</height></size>";
        assert!(problem(size).starts_with("<height> holds \"x\", which is no number"));
    }
}
