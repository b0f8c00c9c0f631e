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
#[path = "../rows.rs"]
mod rows;
mod simulation;
mod speed;
mod tei;
mod trace;
mod triton;

use self::{costs::PROFILES, ours::Ours, policy::Policy, report::Report, rows::Row, tei::Tei, trace::TRACES, triton::Triton};

fn main() -> anyhow::Result<()> {
    if std::env::args().any(|argument| argument == "--measure") {
        return measure::run();
    }
    let mut rows = Vec::new();
    let mut n_expired = 0;
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
                let report = Report::new(&profile, &trace, &outcome, solo.as_ref());
                report.print();
                if report.is_ours() {
                    n_expired += report.n_expired_launches;
                    rows.extend(report.mixed_sizes(profile.name));
                }
            }
        }
    }
    let is_met = n_expired == 0;
    let what = "expired requests that were launched, all traces".to_owned();
    rows.push(Row { what, result: n_expired.to_string(), target: "0".to_owned(), is_met });
    rows.extend(speed::run());
    rows::write("policies", "make bench", &rows)?;
    Ok(())
}
