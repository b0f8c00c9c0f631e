//! The log of a run as a picture: the loss on the left, what validation gave on the right.

use std::{fs, path::Path};

use anyhow::Context as _;
use embedded_graphics::{
    Drawable as _,
    geometry::{Point, Size},
    mono_font::{MonoTextStyle, ascii::FONT_9X15},
    pixelcolor::Rgb888,
    primitives::{Line as Stroke, Polyline, Primitive as _, PrimitiveStyle, Rectangle},
    text::{Alignment, Text},
};
use serde_json::Value;

use crate::canvas::Canvas;

const WIDTH: u32 = 1200;
const HEIGHT: u32 = 480;
/// Room for numbers left of a panel, and for words above and below it.
const MARGIN: [i32; 2] = [90, 50];
/// Lines of the grid, each way.
const N_TICKS: u8 = 5;
/// Points that a smoothed curve averages over, as a share of all.
const SMOOTH: usize = 40;

const INK: Rgb888 = Rgb888::new(60, 60, 60);
const GRID: Rgb888 = Rgb888::new(225, 225, 225);
const FAINT: Rgb888 = Rgb888::new(190, 210, 235);
const BLUE: Rgb888 = Rgb888::new(31, 100, 180);
/// Of the lines of a chart, in turn: strong and faint.
const COLOURS: [Rgb888; 8] = [
    BLUE,
    FAINT,
    Rgb888::new(215, 100, 20),
    Rgb888::new(240, 205, 175),
    Rgb888::new(40, 140, 60),
    Rgb888::new(185, 220, 190),
    Rgb888::new(130, 60, 150),
    Rgb888::new(215, 190, 220),
];

/// What is drawn on the right.
#[derive(Clone, Debug)]
pub struct Chart {
    /// What stands above it.
    pub title: &'static str,
    /// Lines, those of a pair one after the other.
    pub lines: Vec<Line>,
}

/// A number of the log over the steps.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    /// Key in the log.
    pub key: &'static str,
    /// Place in the list under the key; none where a number stands there.
    pub idx: Option<usize>,
    /// For the legend.
    pub name: &'static str,
}

/// One line of a panel: colour, name (none: not in the legend) and points.
struct Curve {
    colour: Rgb888,
    name: &'static str,
    points: Vec<[f64; 2]>,
}

/// Draws a log as PNG.
///
/// # Errors
/// When the log cannot be read or the picture not written.
pub fn draw(log: &Path, out: &Path, chart: &Chart) -> anyhow::Result<()> {
    let text = fs::read_to_string(log).with_context(|| format!("reading {}", log.display()))?;
    let lines: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let losses = series(&lines, |line| line["loss"].as_f64());
    let mut canvas = Canvas::white(WIDTH, HEIGHT);
    let loss =
        [Curve { colour: BLUE, name: "loss", points: smoothed(&losses) }, Curve { colour: FAINT, name: "", points: losses }];
    let curve = |(line, colour): (&Line, &Rgb888)| {
        let value = |of: &Value| line.idx.map_or(&of[line.key], |idx| &of[line.key][idx]).as_f64();
        Curve { colour: *colour, name: line.name, points: series(&lines, value) }
    };
    let curves = chart.lines.iter().zip(COLOURS.iter().cycle()).map(curve);
    let curves: Vec<Curve> = curves.filter(|curve| !curve.points.is_empty()).collect();
    panel(&mut canvas, 0, "training loss", &loss);
    panel(&mut canvas, 1, chart.title, &curves);
    canvas.write(out)
}

/// Points `[step, value]` of the lines that have the value.
fn series(lines: &[Value], value: impl Fn(&Value) -> Option<f64>) -> Vec<[f64; 2]> {
    lines.iter().filter_map(|line| Some([line["step"].as_f64()?, value(line)?])).collect()
}

fn smoothed(points: &[[f64; 2]]) -> Vec<[f64; 2]> {
    let reach = (points.len() / SMOOTH).max(1);
    let mean = |part: &[[f64; 2]]| {
        #[expect(clippy::cast_precision_loss, reason = "a small count")]
        let n = part.len() as f64;
        [part.iter().map(|point| point[0]).sum::<f64>() / n, part.iter().map(|point| point[1]).sum::<f64>() / n]
    };
    points.chunks(reach).map(mean).collect()
}

/// Draws one half of the picture.
fn panel(canvas: &mut Canvas, idx: i32, title: &str, curves: &[Curve]) {
    let [left, top] = [idx * i32::try_from(WIDTH / 2).unwrap_or_default() + MARGIN[0], MARGIN[1]];
    let size = Size::new(WIDTH / 2 - 120, HEIGHT - 100);
    let all = || curves.iter().flat_map(|curve| &curve.points);
    let bounds = |axis: usize| {
        let (low, high) = all().fold((f64::MAX, f64::MIN), |(low, high), point| (low.min(point[axis]), high.max(point[axis])));
        if low < high { (low, high) } else { (low.min(0.0), low.max(0.0) + 1.0) }
    };
    let (across, up) = (bounds(0), bounds(1));
    let share = |value: f64, (low, high): (f64, f64)| (value - low) / (high - low);
    #[expect(clippy::cast_possible_truncation, reason = "a pixel of this picture")]
    let place = |point: &[f64; 2]| {
        let x = f64::from(left) + share(point[0], across) * f64::from(size.width);
        let y = f64::from(top) + (1.0 - share(point[1], up)) * f64::from(size.height);
        Point::new(x.round() as i32, y.round() as i32)
    };
    let write = |canvas: &mut Canvas, text: &str, at: Point, colour: Rgb888, alignment: Alignment| {
        let Ok(_next) = Text::with_alignment(text, at, MonoTextStyle::new(&FONT_9X15, colour), alignment).draw(canvas);
    };
    for tick in 0..=N_TICKS {
        let part = f64::from(tick) / f64::from(N_TICKS);
        let at = [across.0 + part * (across.1 - across.0), up.0 + part * (up.1 - up.0)];
        let [row, column] =
            [[place(&[across.0, at[1]]), place(&[across.1, at[1]])], [place(&[at[0], up.0]), place(&[at[0], up.1])]];
        for [from, to] in [row, column] {
            let Ok(()) = Stroke::new(from, to).into_styled(PrimitiveStyle::with_stroke(GRID, 1)).draw(canvas);
        }
        write(canvas, &format!("{:.4}", at[1]), row[0] + Point::new(-6, 4), INK, Alignment::Right);
        write(canvas, &format!("{:.0}", at[0]), column[0] + Point::new(0, 20), INK, Alignment::Center);
    }
    let frame = Rectangle::new(Point::new(left, top), size).into_styled(PrimitiveStyle::with_stroke(INK, 1));
    let Ok(()) = frame.draw(canvas);
    for curve in curves.iter().rev() {
        let points: Vec<Point> = curve.points.iter().map(place).collect();
        let Ok(()) = Polyline::new(&points).into_styled(PrimitiveStyle::with_stroke(curve.colour, 2)).draw(canvas);
    }
    write(canvas, title, Point::new(left, top - 14), INK, Alignment::Left);
    let right = left + i32::try_from(size.width).unwrap_or_default() - 10;
    for (line, curve) in (0i32..).zip(curves.iter().filter(|curve| !curve.name.is_empty())) {
        write(canvas, curve.name, Point::new(right, top + 20 + 18 * line), curve.colour, Alignment::Right);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use embedded_graphics::pixelcolor::RgbColor as _;

    use super::*;

    #[test]
    fn a_falling_loss_is_drawn_from_top_left_to_bottom_right() {
        let folder = tempfile::tempdir().unwrap();
        let [log, out] = ["log.jsonl", "loss.png"].map(|name| folder.path().join(name));
        let lines: Vec<String> = (0..200).map(|step| format!("{{\"step\":{step},\"loss\":{}}}", 200 - step)).collect();
        fs::write(&log, lines.join("\n")).unwrap();
        draw(&log, &out, &Chart { title: "", lines: Vec::new() }).unwrap();
        let picture = image::open(&out).unwrap().into_rgb8();
        let blue = image::Rgb([BLUE.r(), BLUE.g(), BLUE.b()]);
        let drawn: Vec<(u32, u32)> = picture
            .enumerate_pixels()
            .filter(|(x, _, pixel)| *x < WIDTH / 2 - 120 && **pixel == blue)
            .map(|(x, y, _)| (x, y))
            .collect();
        let (first, last) = (drawn.iter().min().unwrap(), drawn.iter().max().unwrap());
        assert!(first.1 < HEIGHT / 4 && last.1 > HEIGHT / 2 && last.0 > 4 * first.0, "{first:?} {last:?}");
    }
}
