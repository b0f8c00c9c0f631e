//! The windows of one image through the batcher, and their scores put together.

use std::sync::Arc;

use futures_util::future::try_join_all;

use crate::{
    batch::Completed,
    engine::{Clock, Engine, InferError, LoadedModel, Timing, extract::run, segment::raster::mask_failed},
    masks::{Mosaic, Scores, Window},
    runtime::{FeatureKey, Features, RunKey, RunOutput},
    tensor::RgbImage,
};

/// What the runs of one image gave.
#[derive(Debug)]
pub(super) struct Runs {
    pub(super) scores: Scores,
    pub(super) features: Option<Features>,
    /// Of the window that took longest: windows run beside each other.
    pub(super) timing: Timing,
}

impl Engine {
    /// Runs all windows on an input; with `features` there is only one.
    pub(super) async fn run_windows(
        &self,
        model: &Arc<LoadedModel>,
        features: Option<FeatureKey>,
        input: RgbImage,
        windows: &[Window],
        clock: Clock,
    ) -> Result<Runs, InferError> {
        let size = [input.height(), input.width()];
        let key = |height, width| RunKey { height, width, features: features.clone(), segment: true };
        let missing = || InferError::internal("running the model", "it gave no scores");
        if windows.len() <= 1 {
            let done = run(model, key(size[0], size[1]), input, clock).await?;
            let timing = timing(&done);
            let RunOutput { scores, features, .. } = done.output;
            let scores = Scores::new(scores.ok_or_else(missing)?).map_err(mask_failed)?;
            return Ok(Runs { scores, features, timing });
        }
        let (parts, windows) = self.cut(input, windows, clock).await?;
        let jobs = parts.into_iter().map(|part| run(model, key(part.height(), part.width()), part, clock));
        let done = try_join_all(jobs).await?;
        let timing = done.iter().map(timing).max_by_key(|timing| timing.queue + timing.infer()).unwrap_or_default();
        let [rows, cols, n_classes] = model.manifest().scores_shape(size).ok_or_else(missing)?;
        let limits = self.limits().masks;
        let work = move || {
            let mut mosaic = Mosaic::new(size, [rows, cols], n_classes, &limits).map_err(mask_failed)?;
            for (window, done) in windows.iter().zip(done) {
                let scores = Scores::new(done.output.scores.ok_or_else(missing)?).map_err(mask_failed)?;
                mosaic.add(window, &scores).map_err(mask_failed)?;
            }
            mosaic.finish().map_err(mask_failed)
        };
        let scores = self.cpu().run("while putting windows together", clock.deadline, work).await??;
        Ok(Runs { scores, features: None, timing })
    }

    /// Copies the windows out of an input.
    async fn cut(&self, input: RgbImage, windows: &[Window], clock: Clock) -> Result<(Vec<RgbImage>, Vec<Window>), InferError> {
        let windows = windows.to_vec();
        let work = move || {
            let parts: Option<Vec<RgbImage>> = windows.iter().map(|window| part(&input, window)).collect();
            parts.map(|parts| (parts, windows))
        };
        let parts = self.cpu().run("while cutting windows", clock.deadline, work).await?;
        parts.ok_or_else(|| InferError::internal("cutting windows", "a window lies outside the input"))
    }
}

fn timing(done: &Completed<RunOutput>) -> Timing {
    let RunOutput { backbone, lift, segment, .. } = done.output;
    let (queue, batch_size) = (done.queue_time, done.batch_size);
    Timing { queue, backbone, lift, segment, batch_size, ..Timing::default() }
}

/// The pixels of a window.
fn part(input: &RgbImage, window: &Window) -> Option<RgbImage> {
    let [x, y, height, width] = [window.x, window.y, window.height, window.width].map(|side| side as usize);
    let rows = input.data().chunks_exact(3 * input.width() as usize).skip(y).take(height);
    let data: Option<Vec<&[u8]>> = rows.map(|row| row.get(3 * x..3 * (x + width))).collect();
    RgbImage::new(window.height, window.width, data?.concat())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_window_holds_its_pixels_and_none_beyond_the_input() {
        let input = RgbImage::new(2, 3, (0..18).collect()).unwrap();
        let window = |x, width| part(&input, &Window { x, y: 1, height: 1, width });
        assert_eq!(window(1, 2).unwrap().data(), [12, 13, 14, 15, 16, 17]);
        assert!(window(2, 2).is_none());
    }
}
