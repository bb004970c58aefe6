//! Puts a release and what is stated into a registry. Blobs that it has already are not sent.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use punktfunk_update::error::UpdateError;
use punktfunk_update::name::BlobDigest;
use punktfunk_update::statement::MAX_ENVELOPE_BYTES;
use punktfunk_update::transport::bundle::{EMPTY, MANIFEST_TYPE, write_envelope_manifest};
use punktfunk_update::transport::http::{parse_uri, target};
use punktfunk_update::transport::{Address, Cancel, Client, Patience};
use ureq::http::{Method, Response, StatusCode, Uri};
use ureq::{Agent, Body, SendBody};

use crate::layout::Layout;

/// Where user and password of a registry are looked for, as `user:password`; a command line is for everybody to read.
pub const CREDENTIALS: &str = "PUNKTFUNK_REGISTRY_USER";

/// Who https is believed by, in the way Debian keeps it.
const ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";

/// A registry may think about a large blob.
const IDLE: Duration = Duration::from_secs(300);

/// What is to be pushed, and where to.
#[derive(Debug, Clone)]
pub struct Push<'a> {
    /// The release.
    pub layout: &'a Layout,
    /// The repository.
    pub to: Address,
    /// What is stated, as its makers signed it, and the name under which boxes look for it, such as `stable-slim`.
    pub stated: Option<(&'a Path, &'a str)>,
    /// `user:password`, if anybody may push only so.
    pub credentials: Option<String>,
    /// Whether http may go to another machine.
    pub plain: bool,
}

impl Push<'_> {
    /// Pushes the release first and what is stated last: no box hears of a release that is not there.
    ///
    /// # Errors
    /// The registry does not take it, or something is missing.
    pub fn run(&self) -> anyhow::Result<()> {
        let patience = Patience { idle: IDLE, ..Patience::default() };
        let client = Client::new(Path::new(ROOTS), self.plain, patience);
        let basic =
            self.credentials.as_deref().map(|text| format!("Basic {}", base64(text.as_bytes())));
        let mut failed = None;
        let spoken = client.speak(&Cancel::default(), |agent| {
            let mut desk = Desk { client: &client, agent, to: &self.to, basic, token: None };
            if let Err(error) = self.send(&mut desk) {
                failed = Some(error);
            }
            Ok::<_, UpdateError>(())
        });
        spoken?;
        failed.map_or(Ok(()), Err)
    }

    fn send(&self, desk: &mut Desk<'_>) -> anyhow::Result<()> {
        let (image, bytes, manifest) = self.layout.manifest()?;
        desk.blob(BlobDigest::of(EMPTY), &mut || {
            Ok((SendBody::from_owned_reader(EMPTY), EMPTY.len() as u64))
        })?;
        for blob in manifest.blobs() {
            desk.blob(blob.digest, &mut || {
                let (file, length) = self.layout.open_blob(blob.digest)?;
                ensure!(length == blob.size_bytes, "{} is damaged", blob.digest);
                Ok((SendBody::from_owned_reader(file), length))
            })?;
        }
        desk.manifest(&image.to_string(), &bytes)?;
        let Some((envelope, tag)) = self.stated else { return Ok(()) };
        let envelope = punktfunk_os::files::read(envelope, MAX_ENVELOPE_BYTES)?;
        let length = envelope.len() as u64;
        desk.blob(BlobDigest::of(&envelope), &mut || {
            Ok((SendBody::from_owned_reader(std::io::Cursor::new(envelope.clone())), length))
        })?;
        desk.manifest(tag, &write_envelope_manifest(&envelope)?)
    }
}

/// A conversation with a registry.
struct Desk<'a> {
    client: &'a Client,
    agent: &'a Agent,
    to: &'a Address,
    basic: Option<String>,
    token: Option<String>,
}

impl Desk<'_> {
    /// Puts a blob there if it is not.
    fn blob(
        &mut self,
        digest: BlobDigest,
        open: &mut dyn FnMut() -> anyhow::Result<(SendBody<'static>, u64)>,
    ) -> anyhow::Result<()> {
        let url = parse_uri(&self.to.url(&format!("blobs/{digest}")))?;
        if self.ask(Method::HEAD, &url, &[], &mut || Ok(SendBody::none()))?.status()
            == StatusCode::OK
        {
            return Ok(());
        }
        let url = parse_uri(&self.to.url("blobs/uploads/"))?;
        let begun =
            self.ask(Method::POST, &url, &[("content-length", "0")], &mut || Ok(SendBody::none()))?;
        expect(&begun, StatusCode::ACCEPTED, "begin an upload")?;
        let place = target(&url, &begun)?;
        let sign = if place.query().is_some() { '&' } else { '?' };
        let place = parse_uri(&format!("{place}{sign}digest={digest}"))?;
        let length = open()?.1.to_string();
        let headers = [("content-type", "application/octet-stream"), ("content-length", &length)];
        let put = self.ask(Method::PUT, &place, &headers, &mut || Ok(open()?.0))?;
        expect(&put, StatusCode::CREATED, &format!("upload {digest}"))
    }

    fn manifest(&mut self, reference: &str, bytes: &[u8]) -> anyhow::Result<()> {
        let url = parse_uri(&self.to.url(&format!("manifests/{reference}")))?;
        let length = bytes.len().to_string();
        let headers = [("content-type", MANIFEST_TYPE), ("content-length", &length)];
        let mut body = || Ok(SendBody::from_owned_reader(std::io::Cursor::new(bytes.to_vec())));
        let put = self.ask(Method::PUT, &url, &headers, &mut body)?;
        expect(&put, StatusCode::CREATED, &format!("put the manifest {reference}"))
    }

    /// Asks; once more with a token if one is wanted. What is not the registry itself hears of no token.
    fn ask(
        &mut self,
        method: Method,
        uri: &Uri,
        headers: &[(&str, &str)],
        body: &mut dyn FnMut() -> anyhow::Result<SendBody<'static>>,
    ) -> anyhow::Result<Response<Body>> {
        let is_own = self.to.is_at(uri);
        let mut authorization = self.token.clone().filter(|_| is_own);
        for attempt in 0..2 {
            let call = (method.clone(), uri);
            let answer =
                self.client.send(self.agent, call, headers, authorization.as_deref(), body()?)?;
            if answer.status() != StatusCode::UNAUTHORIZED || attempt > 0 || !is_own {
                return Ok(answer);
            }
            self.token = Some(self.authorize(&answer)?);
            authorization = self.token.clone();
        }
        bail!("a registry wants to know who asks again and again")
    }

    /// Small registries want the password itself, large ones a token.
    fn authorize(&self, refused: &Response<Body>) -> anyhow::Result<String> {
        let said = refused.headers().get("www-authenticate").and_then(|it| it.to_str().ok());
        let wants_basic = said.is_some_and(|said| said.to_ascii_lowercase().starts_with("basic"));
        match &self.basic {
            Some(basic) if wants_basic => Ok(basic.clone()),
            basic => {
                let asked = ("pull,push", basic.as_deref());
                Ok(self.client.token(self.agent, self.to, refused, asked)?)
            }
        }
    }
}

fn expect(answer: &Response<Body>, status: StatusCode, doing: &str) -> anyhow::Result<()> {
    ensure!(
        answer.status() == status,
        "could not {doing}: the registry answers {}",
        answer.status()
    );
    Ok(())
}

/// The credentials of the environment, or of a file that only its owner reads.
///
/// # Errors
/// The file cannot be read.
pub fn credentials(file: Option<&Path>) -> anyhow::Result<Option<String>> {
    let text = match file {
        Some(file) => {
            let bytes = punktfunk_os::files::read(file, 4096)?;
            Some(String::from_utf8(bytes).context("credentials are text")?)
        }
        None => std::env::var(CREDENTIALS).ok(),
    };
    let text = text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    if text.as_ref().is_some_and(|text| !text.contains(':')) {
        bail!("credentials look like user:password");
    }
    Ok(text)
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let all = (0..3).fold(0_u32, |all, at| all << 8 | u32::from(*three.get(at).unwrap_or(&0)));
        for at in 0..4 {
            let digit = char::from(DIGITS[(all >> (18 - 6 * at) & 63) as usize]);
            text.push(if at <= three.len() { digit } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_written_as_http_wants_them() {
        for (plain, written) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("a:b?>", "YTpiPz4=")]
        {
            assert_eq!(base64(plain.as_bytes()), written);
        }
    }
}
