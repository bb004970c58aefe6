//! Releases from a registry for container images, by its distribution protocol. Whoever runs it is believed nothing.

use std::io::Read;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use ureq::http::{Response, StatusCode, header};
use ureq::{Agent, Body};

use crate::error::UpdateError;
use crate::name::{BlobDigest, Channel};
use crate::transport::bundle::{MANIFEST_TYPE, MAX_MANIFEST_BYTES, parse_envelope_manifest};
use crate::transport::http::{Address, Client, Patience, body, unreachable};
use crate::transport::{Cancel, Source, Wanted};

/// What is read at once, in bytes.
const PIECE_BYTES: usize = 128 << 10;

/// A repository of a registry.
#[derive(Debug)]
pub struct Registry {
    address: Address,
    client: Client,
    /// What it gave so that it may be asked again; it is for everybody and no secret.
    token: Mutex<Option<String>>,
}

impl Registry {
    /// The registry at an address. `roots` is the file of certificates that https is believed by, in PEM; it is read when it is
    /// needed. `plain` lets `http://` go to other machines, too; without it, only to loopback addresses.
    pub fn new(address: Address, roots: &Path, plain: bool, patience: Patience) -> Self {
        let client = Client::new(roots, plain, patience);
        Self { address, client, token: Mutex::default() }
    }

    /// Asks, and asks again with a token if one is wanted.
    fn ask(
        &self,
        agent: &Agent,
        what: &str,
        headers: &[(&str, &str)],
    ) -> Result<Response<Body>, UpdateError> {
        let url = self.address.url(what);
        let get = |token: Option<&str>| self.client.get(agent, &self.address, &url, headers, token);
        let token = || self.token.lock().unwrap_or_else(PoisonError::into_inner);
        let old = token().clone();
        let mut answer = get(old.as_deref())?;
        if answer.status() == StatusCode::UNAUTHORIZED {
            let new = self.client.token(agent, &self.address, &answer, ("pull", None))?;
            answer = get(Some(&new))?;
            *token() = Some(new);
        }
        match answer.status() {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => Ok(answer),
            status => Err(unreachable(format!("{} answers {status} for {what}", self.address))),
        }
    }

    fn take_envelope(&self, agent: &Agent, tag: &str) -> Result<Vec<u8>, UpdateError> {
        let accept = [("accept", MANIFEST_TYPE)];
        let answer = self.ask(agent, &format!("manifests/{tag}"), &accept)?;
        let (digest, size) = parse_envelope_manifest(&body(answer, MAX_MANIFEST_BYTES)?)?;
        let answer = self.ask(agent, &format!("blobs/{digest}"), &[])?;
        let envelope = body(answer, size)?;
        if BlobDigest::of(&envelope) == digest {
            return Ok(envelope);
        }
        Err(UpdateError::Content { detail: format!("what came for {digest} has another digest") })
    }
}

impl Source for Registry {
    fn envelope(
        &self,
        channel: Channel,
        flavour: &str,
        cancel: &Cancel,
    ) -> Result<Vec<u8>, UpdateError> {
        let tag = format!("{channel}-{flavour}");
        self.client.speak(cancel, |agent| self.take_envelope(agent, &tag))
    }

    fn blob(
        &self,
        blob: Wanted,
        offset: u64,
        take: &mut dyn FnMut(&[u8]) -> Result<(), UpdateError>,
        cancel: &Cancel,
    ) -> Result<(), UpdateError> {
        let kind = if blob.is_manifest { "manifests" } else { "blobs" };
        let what = format!("{kind}/{}", blob.digest);
        let range = format!("bytes={offset}-");
        let mut headers = Vec::new();
        if blob.is_manifest {
            headers.push(("accept", MANIFEST_TYPE));
        }
        if offset > 0 {
            headers.push(("range", range.as_str()));
        }
        self.client.speak(cancel, |agent| {
            let answer = self.ask(agent, &what, &headers)?;
            let skip = begins(&answer, blob, offset)?;
            give(answer, blob, (skip, offset), take, cancel)
        })
    }
}

/// Where an answer begins: not all who are asked for the rest of something give only that.
fn begins(answer: &Response<Body>, blob: Wanted, offset: u64) -> Result<u64, UpdateError> {
    let start = match answer.status() {
        StatusCode::PARTIAL_CONTENT => {
            let said = answer.headers().get(header::CONTENT_RANGE);
            let said = said.and_then(|range| range.to_str().ok()).unwrap_or_default();
            let start = said.strip_prefix("bytes ").and_then(|rest| rest.split_once('-'));
            match start.and_then(|(start, _)| start.parse().ok()) {
                Some(start) if start == offset && offset > 0 => start,
                _ => {
                    return Err(unreachable(format!(
                        "it was asked for {offset}- and gives \"{said}\""
                    )));
                }
            }
        }
        _ => 0,
    };
    let owed = blob.total_bytes - start.min(blob.total_bytes);
    match answer.body().content_length() {
        Some(said) if said > owed || (said < owed && !blob.is_manifest) => {
            let detail = format!("{} is to come in {said} bytes and not in {owed}", blob.digest);
            Err(UpdateError::Content { detail })
        }
        _ => Ok(start),
    }
}

/// Gives what comes from `offset` on; what stands before it was had already.
fn give(
    answer: Response<Body>,
    blob: Wanted,
    (mut at, offset): (u64, u64),
    take: &mut dyn FnMut(&[u8]) -> Result<(), UpdateError>,
    cancel: &Cancel,
) -> Result<(), UpdateError> {
    let mut reader = answer.into_body().into_reader();
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        cancel.check()?;
        let count = reader.read(&mut piece).map_err(unreachable)?;
        if count == 0 {
            break;
        }
        let known = offset.saturating_sub(at).min(count as u64);
        at += count as u64;
        if at > blob.total_bytes {
            let detail = format!("more came than {} has", blob.digest);
            return Err(UpdateError::Content { detail });
        }
        if known < count as u64 {
            take(&piece[known as usize..count])?;
        }
    }
    if at < blob.total_bytes && !blob.is_manifest {
        return Err(unreachable(format!("it broke off at {at} of {} bytes", blob.total_bytes)));
    }
    Ok(())
}
