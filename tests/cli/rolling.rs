//! Servers that are replaced one after the other under load, as a rollout does it.

use std::{
    process::Stdio,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use densevit::grpc::{client::Client, pb::v1 as pb};

use crate::support::{Serving, densevit, models};

/// Clients that ask without a pause.
const N_CLIENTS: usize = 4;
/// Times that a server is replaced.
const N_REPLACED: usize = 4;

fn server() -> Serving {
    let mut command = densevit();
    command.args(["serve", "--listen", "127.0.0.1:0", "--no-admin", "--set", "shutdown.delay_s=0.2", "--models"]).arg(models());
    Serving::start_as(command.stderr(Stdio::null()))
}

fn request() -> pb::ExtractRequest {
    let raw = pb::RawImage { height: 64, width: 64, data: Bytes::from(vec![7; 64 * 64 * 3]) };
    pb::ExtractRequest { image: Some(pb::Image { source: Some(pb::image::Source::Raw(raw)) }), ..Default::default() }
}

/// What a balancer does: one server after the other, and the next one where nobody answers or a server says that it goes.
async fn ask(addresses: &Mutex<Vec<String>>, first: usize) -> Result<(), String> {
    let known = addresses.lock().unwrap().clone();
    let mut problem = String::new();
    for idx in 0..known.len() {
        let address = &known[(first + idx) % known.len()];
        let outcome = match Client::connect(address).await {
            Ok(client) => client.extract(request()).await,
            Err(error) => Err(error),
        };
        match outcome {
            Ok(_features) => return Ok(()),
            Err(densevit::grpc::client::ClientError::Status(status)) if status.code() != tonic::Code::Unavailable => {
                return Err(status.to_string());
            }
            Err(error) => problem = format!("{error:?}"),
        }
    }
    Err(problem)
}

#[test]
fn a_rolling_restart_under_load_fails_no_request() {
    let mut servers = [server(), server()];
    let addresses = Arc::new(Mutex::new(servers.iter().map(|server| server.address.clone()).collect::<Vec<_>>()));
    let (stop, n_answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let clients: Vec<_> = (0..N_CLIENTS)
        .map(|client| {
            let (addresses, stop, n_answered) = (Arc::clone(&addresses), Arc::clone(&stop), Arc::clone(&n_answered));
            runtime.spawn(async move {
                let mut n = client;
                while !stop.load(Ordering::Relaxed) {
                    ask(&addresses, n).await?;
                    n_answered.fetch_add(1, Ordering::Relaxed);
                    n += 1;
                }
                Ok::<(), String>(())
            })
        })
        .collect();
    for idx in 0..N_REPLACED {
        // The new one answers before the old one is told to go, and every server sees requests meanwhile.
        let new = server();
        let old = std::mem::replace(&mut servers[idx % 2], new);
        *addresses.lock().unwrap() = servers.iter().map(|server| server.address.clone()).collect();
        let before = n_answered.load(Ordering::Relaxed);
        old.signal("-TERM");
        let mut old = old;
        assert_eq!(old.child.wait().unwrap().code(), Some(0));
        let waited = Instant::now();
        while n_answered.load(Ordering::Relaxed) < before + 8 {
            assert!(waited.elapsed() < Duration::from_secs(60), "the others answer");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        assert_eq!(runtime.block_on(client).unwrap(), Ok(()));
    }
    assert!(n_answered.load(Ordering::Relaxed) >= 8 * N_REPLACED as u64);
}
