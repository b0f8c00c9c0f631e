//! What a policy decides.

use tokio::time::Instant;

use crate::trace::Request;

/// A request on its way.
#[derive(Clone, Copy, Debug)]
pub struct Job {
    pub id: usize,
    pub request: Request,
    pub arrived: Instant,
    pub deadline: Instant,
}

/// What an idle executor does next.
#[derive(Debug)]
pub enum Next {
    Run(Vec<Job>),
    WaitUntil(Instant),
    Nothing,
}

pub trait Policy {
    fn name(&self) -> &'static str;

    /// A request arrives. Says whether it is accepted.
    fn arrive(&mut self, now: Instant, job: Job) -> bool;

    /// The caller of an accepted request stops waiting, at its deadline.
    fn leave(&mut self, now: Instant, id: usize);

    /// The executor is idle.
    fn next(&mut self, now: Instant) -> Next;

    /// The executor has ended its batch.
    fn finished(&mut self, now: Instant);
}
