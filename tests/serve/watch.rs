//! A model repository that changes under a running server.

use std::{fs, path::Path, time::Duration};

use densevit::grpc::client::Client;
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use crate::support::{TestServer, models_dir, server_with};

/// A repository with the model "registers" alone, and a server that watches it.
async fn watched() -> (TempDir, TestServer) {
    let folder = tempfile::tempdir().unwrap();
    copy(&models_dir().join("registers"), &folder.path().join("registers"));
    let dir = folder.path().to_str().unwrap().to_owned();
    let settings = [("models.dir", dir.as_str()), ("models.default", "registers"), ("models.watch_s", "1")];
    let server = server_with(&settings).await;
    (folder, server)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Waits until the server has these models, `NAME/VERSION`, in order.
async fn wait_for(client: &Client, expected: &[&str]) {
    let waited = timeout(Duration::from_secs(60), async {
        loop {
            let models = client.models().await.unwrap();
            let mut names: Vec<String> = models.iter().map(|model| format!("{}/{}", model.name, model.version)).collect();
            names.sort();
            if names == expected {
                return;
            }
            sleep(Duration::from_millis(100)).await;
        }
    });
    waited.await.unwrap_or_else(|_elapsed| panic!("the server never had {expected:?}"));
}

#[tokio::test]
async fn models_come_and_go_with_their_folders_and_health_follows() {
    let (folder, server) = watched().await;
    let client = Client::connect(&server.address().to_string()).await.unwrap();
    wait_for(&client, &["registers/1"]).await;
    copy(&models_dir().join("tiny"), &folder.path().join("tiny"));
    wait_for(&client, &["registers/1", "tiny/1"]).await;
    assert!(client.is_serving("models/tiny").await.unwrap());
    fs::remove_dir_all(folder.path().join("tiny")).unwrap();
    wait_for(&client, &["registers/1"]).await;
    assert!(!client.is_serving("models/tiny").await.unwrap());
    server.stop().await;
}

#[tokio::test]
async fn a_broken_new_version_leaves_the_old_one_answering_until_it_is_mended() {
    let (folder, server) = watched().await;
    let client = Client::connect(&server.address().to_string()).await.unwrap();
    let (first, second) = (folder.path().join("registers/1"), folder.path().join("registers/2"));
    copy(&first, &second);
    // The manifest still says version 1: it contradicts its place.
    sleep(Duration::from_secs(4)).await;
    wait_for(&client, &["registers/1"]).await;
    let manifest = fs::read_to_string(second.join("model.toml")).unwrap();
    assert!(manifest.contains("version = 1"), "{manifest}");
    fs::write(second.join("model.toml"), manifest.replacen("version = 1", "version = 2", 1)).unwrap();
    wait_for(&client, &["registers/1", "registers/2"]).await;
    fs::remove_dir_all(second).unwrap();
    wait_for(&client, &["registers/1"]).await;
    server.stop().await;
}
