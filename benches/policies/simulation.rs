//! One executor, one policy, one trace.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashSet},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    costs::{NOISE, Profile},
    policy::{Job, Next, Policy},
    random::Random,
    trace::{Request, Trace},
};

/// What became of a request that was run.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    pub request: Request,
    pub latency: Duration,
    pub is_in_time: bool,
}

/// What became of a trace.
#[derive(Debug)]
pub struct Outcome {
    pub policy: &'static str,
    pub answers: Vec<Answer>,
    pub n_refused: usize,
    pub n_launches: usize,
    /// Requests that were launched after their deadline.
    pub n_expired_launches: usize,
    pub elapsed: Duration,
}

struct Simulation<'a> {
    profile: &'a Profile,
    policy: Box<dyn Policy>,
    now: Instant,
    random: Random,
    running: Option<(Instant, Vec<Job>)>,
    deadlines: BinaryHeap<Reverse<(Instant, usize)>>,
    answered: HashSet<usize>,
    outcome: Outcome,
}

/// Runs a trace to its end.
pub fn run(profile: &Profile, trace: &Trace, policy: Box<dyn Policy>) -> Outcome {
    let start = Instant::now();
    let outcome = Outcome {
        policy: policy.name(),
        answers: Vec::new(),
        n_refused: 0,
        n_launches: 0,
        n_expired_launches: 0,
        elapsed: Duration::ZERO,
    };
    let (deadlines, answered, random) = (BinaryHeap::new(), HashSet::new(), Random::new(7));
    let mut simulation = Simulation { profile, policy, now: start, random, running: None, deadlines, answered, outcome };
    for (id, request) in trace.requests.iter().enumerate() {
        simulation.advance_to(start + request.at);
        simulation.arrive(id, *request);
    }
    // Rates are those of the time in which requests arrived; what a queue without an end still holds then would come too late.
    simulation.outcome.elapsed = simulation.now - start;
    simulation.outcome
}

impl Simulation<'_> {
    fn advance_to(&mut self, end: Instant) {
        loop {
            let wake = self.launch();
            let finish = self.running.as_ref().map(|(at, _)| *at);
            let deadline = self.deadlines.peek().map(|Reverse((at, _))| *at);
            let Some(next) = [wake, finish, deadline].into_iter().flatten().min().filter(|next| *next <= end) else { break };
            self.now = next;
            if finish == Some(next) {
                self.finish();
            } else if deadline == Some(next) {
                self.expire();
            }
        }
        self.now = end;
    }

    fn arrive(&mut self, id: usize, request: Request) {
        let deadline = self.now + request.deadline;
        let job = Job { id, request, arrived: self.now, deadline };
        if self.policy.arrive(self.now, job) {
            self.deadlines.push(Reverse((deadline, id)));
        } else {
            self.outcome.n_refused += 1;
        }
    }

    fn expire(&mut self) {
        let Some(Reverse((_, id))) = self.deadlines.pop() else { return };
        if !self.answered.remove(&id) {
            self.policy.leave(self.now, id);
        }
    }

    /// Launches what can be; else tells when there may be something.
    fn launch(&mut self) -> Option<Instant> {
        if self.running.is_some() {
            return None;
        }
        let jobs = match self.policy.next(self.now) {
            Next::Run(jobs) => jobs,
            Next::WaitUntil(at) => return Some(at),
            Next::Nothing => return None,
        };
        self.outcome.n_launches += 1;
        self.outcome.n_expired_launches += jobs.iter().filter(|job| job.deadline <= self.now).count();
        // Mixed sizes are padded to the largest.
        let size_idx = jobs.iter().map(|job| job.request.size_idx).max().unwrap_or_default();
        let noise = 1.0 + NOISE * (2.0 * self.random.uniform() - 1.0);
        let time = Duration::from_secs_f64(self.profile.seconds(size_idx, jobs.len()) * noise);
        self.running = Some((self.now + time, jobs));
        None
    }

    fn finish(&mut self) {
        let Some((_, jobs)) = self.running.take() else { return };
        for Job { id, request, arrived, deadline } in jobs {
            let (latency, is_in_time) = (self.now - arrived, self.now <= deadline);
            if is_in_time {
                self.answered.insert(id);
            }
            self.outcome.answers.push(Answer { request, latency, is_in_time });
        }
        self.policy.finished(self.now);
    }
}
