//! Who may call: bearer tokens (API keys) from a file, each of a tenant.
//!
//! # Design
//! The file holds SHA-256 digests, so that reading it gives nobody a token, and digests of a presented token are compared with all of
//! them, each in constant time: how long a refusal takes says nothing. The tenant of the token replaces whatever the caller wrote into
//! the `densevit-tenant` metadata, so that fairness and limits by tenant rest on something that was proved.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _};
use tonic::Status;

use crate::{
    engine::Tenant,
    grpc::{
        names::{HEALTH, TENANT},
        reloaded::{NamedFile, ReloadError, Reloaded},
    },
    telemetry::record,
};

/// The other way to show a token.
const API_KEY: &str = "x-api-key";

/// Authentication of callers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuthConfig {
    /// Tokens (TOML): a table a tenant, `[NAME]`, with `sha256 = ["..."]`, the digests of its tokens (`printf %s TOKEN | sha256sum`).
    /// Empty, the default: everybody may call.
    pub tokens: PathBuf,
    /// Seconds between looks at the file for new contents; 0: never. Default 30.
    pub reload_s: u64,
}

impl Default for AuthConfig {
    fn default() -> Self {
        Self { tokens: PathBuf::new(), reload_s: 30 }
    }
}

/// The tokens in force.
#[derive(Clone, Debug)]
pub(super) struct Auth {
    tokens: Arc<Reloaded<Tokens>>,
}

/// Tenants by digest of their tokens.
#[derive(Debug)]
struct Tokens {
    tenants: Vec<HeaderValue>,
    /// Digest, and index of its tenant.
    digests: Vec<([u8; 32], u32)>,
}

/// A table of the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TenantTokens {
    sha256: Vec<String>,
}

impl Auth {
    /// Reads the file, if one is named, and looks at it again as configured.
    ///
    /// # Errors
    /// When it is missing or holds something else.
    pub(super) fn open(config: &AuthConfig) -> Result<Option<Self>, ReloadError> {
        if config.tokens.as_os_str().is_empty() {
            return Ok(None);
        }
        let file = NamedFile { key: "grpc.auth.tokens", file: config.tokens.clone() };
        let make = |files: &[NamedFile], contents: &[Vec<u8>]| {
            let read =
                |(file, contents): (&NamedFile, &Vec<u8>)| Tokens::parse(contents).map_err(|problem| file.problem(problem));
            files.iter().zip(contents).map(read).next().unwrap_or_else(|| Ok(Tokens::none()))
        };
        let tokens = Arc::new(Reloaded::open("tokens", vec![file], Box::new(make))?);
        tokens.watch(config.reload_s);
        Ok(Some(Self { tokens }))
    }

    /// The tenant of a caller.
    fn tenant(&self, headers: &HeaderMap) -> Result<HeaderValue, &'static str> {
        let token =
            token(headers).ok_or("a token is needed: metadata \"authorization: Bearer TOKEN\" or \"x-api-key: TOKEN\"")?;
        self.tokens.current().tenant(token).ok_or("the token is not known")
    }
}

/// Lets calls with a known token pass, under the name of its tenant.
pub(super) async fn authenticated(State(auth): State<Auth>, mut request: Request, next: Next) -> Response {
    if request.uri().path().starts_with(HEALTH) {
        return next.run(request).await;
    }
    match auth.tenant(request.headers()) {
        Ok(tenant) => {
            request.headers_mut().insert(TENANT, tenant);
            next.run(request).await
        }
        Err(problem) => {
            record::refused("token");
            Status::unauthenticated(problem).into_http()
        }
    }
}

/// The token that a caller shows.
fn token(headers: &HeaderMap) -> Option<&[u8]> {
    let bearer = headers.get(AUTHORIZATION).and_then(|value| {
        let (scheme, token) = value.as_bytes().split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
    });
    bearer.or_else(|| headers.get(API_KEY).map(|value| value.as_bytes().trim_ascii()))
}

impl Tokens {
    fn none() -> Self {
        Self { tenants: Vec::new(), digests: Vec::new() }
    }

    fn parse(contents: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(contents).map_err(|_not_text| "it is no text")?;
        let tables: BTreeMap<String, TenantTokens> = toml::from_str(text).map_err(|error| error.message().to_owned())?;
        let mut tokens = Self::none();
        for (name, table) in tables {
            name.parse::<Tenant>().map_err(|problem| format!("\"{name}\" is no tenant: it {problem}"))?;
            let tenant = u32::try_from(tokens.tenants.len()).map_err(|_too_many| "it holds too many tenants")?;
            for digest in &table.sha256 {
                let digest =
                    digest_of(digest).ok_or_else(|| format!("{name}.sha256 holds \"{digest}\", expected 64 hex digits"))?;
                if tokens.digests.iter().any(|(known, _)| *known == digest) {
                    return Err(format!("{name}.sha256 holds a digest twice, or one of another tenant"));
                }
                tokens.digests.push((digest, tenant));
            }
            tokens.tenants.push(HeaderValue::from_str(&name).map_err(|error| error.to_string())?);
        }
        if tokens.digests.is_empty() {
            return Err("it holds no token".into());
        }
        Ok(tokens)
    }

    /// Compares with all tokens, whichever it is.
    fn tenant(&self, token: &[u8]) -> Option<HeaderValue> {
        let presented: [u8; 32] = Sha256::digest(token).into();
        let (mut found, mut tenant) = (Choice::from(0), 0u32);
        for (digest, of) in &self.digests {
            let is_equal = digest.ct_eq(&presented);
            tenant.conditional_assign(of, is_equal);
            found |= is_equal;
        }
        bool::from(found).then(|| self.tenants.get(tenant as usize).cloned())?
    }
}

fn digest_of(hex: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    if hex.len() != 64 || !hex.is_ascii() {
        return None;
    }
    for (idx, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(hex.get(2 * idx..2 * idx + 2)?, 16).ok()?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    /// SHA-256 of "abc" and of the empty text (FIPS 180-2, appendix B).
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn a_token_names_its_tenant_and_no_other_does() {
        let tokens =
            Tokens::parse(format!("[first]\nsha256 = [\"{EMPTY}\"]\n[second]\nsha256 = [\"{ABC}\"]").as_bytes()).unwrap();
        assert_eq!(tokens.tenant(b"abc").unwrap(), "second");
        assert_eq!(tokens.tenant(b"").unwrap(), "first");
        assert_eq!(tokens.tenant(b"abd"), None);
    }

    #[test]
    fn files_that_cannot_be_meant_are_refused() {
        for (text, expected) in [
            ("", "no token"),
            ("[a]\nsha256 = []", "no token"),
            ("[a]\nsha256 = [\"12\"]", "a.sha256 holds \"12\""),
            ("[a]\ntoken = \"x\"", "unknown field"),
            (&format!("[\"a b\"]\nsha256 = [\"{ABC}\"]"), "is no tenant"),
            (&format!("[a]\nsha256 = [\"{ABC}\"]\n[b]\nsha256 = [\"{ABC}\"]"), "b.sha256 holds a digest twice"),
        ] {
            let problem = Tokens::parse(text.as_bytes()).unwrap_err();
            assert!(problem.contains(expected), "{text}: {problem}");
        }
    }

    #[test]
    fn tokens_come_as_bearer_or_api_key() {
        let headers = |name: &'static str, value: &str| {
            HeaderMap::from_iter([(http::HeaderName::from_static(name), value.parse().unwrap())])
        };
        for (name, value, expected) in [
            ("authorization", "Bearer abc", Some(&b"abc"[..])),
            ("authorization", "bearer  abc ", Some(b"abc")),
            ("authorization", "Basic abc", None),
            ("authorization", "Bearer", None),
            ("x-api-key", "abc", Some(b"abc")),
            ("x-token", "abc", None),
        ] {
            assert_eq!(token(&headers(name, value)), expected, "{name}: {value}");
        }
    }
}
