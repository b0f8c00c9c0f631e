//! Which policy gets more out of an executor? The scheduler of the server, beside those of Triton and of Text Embeddings Inference (TEI), on the
//! same traces in simulated time. `make bench` runs it; `cargo bench --bench policies -- --measure` measures the costs of runs that it assumes.
//!
//! Ours is the code that the server runs, driven by the time of the simulation. Triton's and TEI's are their rules as their sources state
//! them (see `triton.rs`, `tei.rs`), given what they ask of an operator. A caller stops waiting at its deadline.

mod costs;
#[path = "../gateway/cpu_time.rs"]
mod cpu_time;
mod measure;
mod ours;
mod policy;
mod random;
mod report;
mod simulation;
mod speed;
mod tei;
mod trace;
mod triton;

use self::{costs::PROFILES, ours::Ours, policy::Policy, report::Report, tei::Tei, trace::TRACES, triton::Triton};

fn main() -> anyhow::Result<()> {
    if std::env::args().any(|argument| argument == "--measure") {
        return measure::run();
    }
    for profile in PROFILES {
        println!("\n{}", profile.title());
        Report::print_header();
        for kind in TRACES {
            let trace = kind.trace(&profile);
            let alone = trace.without_flood();
            let policies: [&dyn Fn() -> Box<dyn Policy>; 4] =
                [&|| Box::new(Ours::new(&profile)), &|| Box::new(Triton::new(false)), &|| Box::new(Triton::new(true)), &|| {
                    Box::new(Tei::new(&profile))
                }];
            for policy in policies {
                let solo = alone.as_ref().map(|alone| simulation::run(&profile, alone, policy()));
                let outcome = simulation::run(&profile, &trace, policy());
                Report::new(&profile, &trace, &outcome, solo.as_ref()).print();
            }
        }
    }
    speed::run();
    Ok(())
}
