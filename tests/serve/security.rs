//! TLS, mutual TLS and tokens, through real connections.

use std::{fs, path::PathBuf, time::Duration};

use densevit::{
    grpc::{
        client::{Access, Client},
        pb::v1 as pb,
    },
    server::Server,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;
use tokio::{
    io::AsyncReadExt as _,
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{PrivateKeyDer, ServerName},
    },
};
use tonic::{Code, Request, metadata::MetadataValue};

use crate::support::{TestServer, client, config, server_with};

/// An authority, and files with certificates of it.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, folder }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a fresh certificate for localhost, and its key.
    fn renew(&self) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(["localhost".to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        fs::write(self.file("key.pem"), key.serialize_pem()).unwrap();
        fs::write(self.file("server.pem"), certificate.pem()).unwrap();
    }

    /// Settings of a port with a certificate, and others.
    fn settings(&self, others: &[(&str, &str)]) -> Vec<(String, String)> {
        self.renew();
        let file = |name: &str| self.file(name).to_str().unwrap().to_owned();
        let own = [("grpc.tls.certificate", file("server.pem")), ("grpc.tls.key", file("key.pem"))];
        let others = others.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        own.map(|(key, value)| (key.to_owned(), value)).into_iter().chain(others).collect()
    }

    async fn server(&self, others: &[(&str, &str)]) -> TestServer {
        let settings = self.settings(others);
        let settings: Vec<(&str, &str)> = settings.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        server_with(&settings).await
    }

    /// A handshake with the server, with a client's certificate or without.
    async fn handshake(&self, server: &TestServer, with_certificate: bool) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(ring::default_provider().into()).with_safe_default_protocol_versions();
        let builder = builder.unwrap().with_root_certificates(roots);
        let mut config = if with_certificate {
            let key = KeyPair::generate().unwrap();
            let own = CertificateParams::new(["client".to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
            let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
            builder.with_client_auth_cert(vec![own.der().clone()], key).unwrap()
        } else {
            builder.with_no_client_auth()
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        let stream = TcpStream::connect(server.address()).await?;
        TlsConnector::from(std::sync::Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), stream).await
    }
}

/// Whether the server speaks HTTP/2 on a connection: its settings come unasked.
async fn speaks_http2(mut stream: TlsStream<TcpStream>) -> bool {
    use tokio::io::AsyncWriteExt as _;
    let _gone = stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
    // A frame's header: three bytes of length, type 4 for settings.
    let mut header = [0; 9];
    matches!(timeout(Duration::from_secs(20), stream.read_exact(&mut header)).await, Ok(Ok(_))) && header[3] == 4
}

#[tokio::test]
async fn a_port_with_a_certificate_speaks_http2_in_tls_and_takes_up_a_new_certificate() {
    let authority = Authority::new();
    let server = authority.server(&[("grpc.tls.reload_s", "1")]).await;
    let first = authority.handshake(&server, false).await.unwrap();
    let shown = |stream: &TlsStream<TcpStream>| stream.get_ref().1.peer_certificates().unwrap()[0].to_vec();
    let before = shown(&first);
    assert!(speaks_http2(first).await);
    let access = Access { ca: Some(authority.file("ca.pem")), ..Access::default() };
    let address = format!("localhost:{}", server.address().port());
    assert!(Client::connect_with(&address, &access).await.unwrap().is_serving("").await.unwrap());
    assert!(Client::connect(&format!("https://{address}")).await.is_err(), "the system does not know the authority");
    // A key without its certificate makes no configuration: the old one stays in force.
    fs::write(authority.file("server.pem"), "nonsense").unwrap();
    sleep(Duration::from_millis(1500)).await;
    assert_eq!(shown(&authority.handshake(&server, false).await.unwrap()), before);
    authority.renew();
    let renewed = timeout(Duration::from_secs(30), async {
        while shown(&authority.handshake(&server, false).await.unwrap()) == before {
            sleep(Duration::from_millis(100)).await;
        }
    });
    renewed.await.expect("the new certificate is shown");
    server.stop().await;
}

#[tokio::test]
async fn mutual_tls_lets_only_clients_of_the_authority_in() {
    let authority = Authority::new();
    let server = authority.server(&[("grpc.tls.client_ca", authority.file("ca.pem").to_str().unwrap())]).await;
    assert!(speaks_http2(authority.handshake(&server, true).await.unwrap()).await);
    // With TLS 1.3 the client learns of the refusal with the first bytes.
    let refused = match authority.handshake(&server, false).await {
        Err(_alert) => true,
        Ok(stream) => !speaks_http2(stream).await,
    };
    assert!(refused);
    server.stop().await;
}

#[tokio::test]
async fn a_certificate_without_its_key_does_not_start() {
    let authority = Authority::new();
    authority.renew();
    let certificate = authority.file("server.pem");
    let config = config(&[("grpc.tls.certificate", certificate.to_str().unwrap())]);
    let error = Server::bind(config).await.unwrap_err();
    let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
    assert!(source.contains("grpc.tls.key"), "{error}: {source}");
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_dropped() {
    let server = server_with(&[("grpc.idle_timeout_s", "1")]).await;
    let mut silent = TcpStream::connect(server.address()).await.unwrap();
    // The server's own greeting comes first.
    let ended = timeout(Duration::from_secs(30), silent.read_to_end(&mut Vec::new())).await;
    assert!(ended.is_ok(), "the connection is still open");
    server.stop().await;
}

#[tokio::test]
async fn an_old_connection_is_told_to_go_and_its_client_does_not_notice() {
    let server = server_with(&[("grpc.max_connection_age_s", "1")]).await;
    let mut client = client(&server).await;
    for _ in 0..6 {
        client.list_models(pb::ListModelsRequest {}).await.unwrap();
        sleep(Duration::from_millis(500)).await;
    }
    server.stop().await;
}

fn with<T>(message: T, key: &'static str, value: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(key, MetadataValue::try_from(value).unwrap());
    request
}

#[tokio::test]
async fn only_known_tokens_may_call_and_probes_need_none() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = folder.path().join("tokens.toml");
    // SHA-256 of "abc" (FIPS 180-2, appendix B).
    let digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    fs::write(&tokens, format!("[robotics]\nsha256 = [\"{digest}\"]\n")).unwrap();
    let server = server_with(&[("grpc.auth.tokens", tokens.to_str().unwrap()), ("grpc.auth.reload_s", "1")]).await;
    let mut client = client(&server).await;
    let ask = || pb::ListModelsRequest {};
    for request in [Request::new(ask()), with(ask(), "authorization", "Bearer abd"), with(ask(), "densevit-tenant", "robotics")] {
        assert_eq!(client.list_models(request).await.unwrap_err().code(), Code::Unauthenticated);
    }
    client.list_models(with(ask(), "authorization", "Bearer abc")).await.unwrap();
    client.list_models(with(ask(), "x-api-key", "abc")).await.unwrap();
    let access = Access { token: Some("abc".into()), ..Access::default() };
    let own = Client::connect_with(&server.address().to_string(), &access).await.unwrap();
    assert_eq!(own.models().await.unwrap().len(), 2);
    let health = Client::connect(&server.address().to_string()).await.unwrap();
    assert!(health.is_serving("").await.unwrap());
    // SHA-256 of the empty text: the token of before is known no more.
    let other = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    fs::write(&tokens, format!("[robotics]\nsha256 = [\"{other}\"]\n")).unwrap();
    let revoked = timeout(Duration::from_secs(30), async {
        while client.list_models(with(ask(), "x-api-key", "abc")).await.is_ok() {
            sleep(Duration::from_millis(100)).await;
        }
    });
    revoked.await.expect("a token that was taken out is refused");
    server.stop().await;
}
