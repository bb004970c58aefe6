//! The self-test: a client of our own that plays the Test card from the running host and says whether it could.
//!
//! It goes through the doors that everybody's clients go through, in their order - plain HTTP, pairing, HTTPS, RTSP, the
//! control connection, video and audio datagrams - and believes only what comes out at the far end: frame numbers read
//! from decoded pixels, a tone found in decoded samples. The local socket gives it two things that an owner would give
//! a client: the right to be paired once, and the PIN. What it is then is bounded by the host and erased at the end.
//!
//! Deliberately absent: anything of the host's side of a door. What this room knows of the protocol it knows from `core`,
//! and from the specification, as a client does. Absent, too: trust in the host. Whatever it answers is bounded in bytes,
//! every wait is bounded in time, and so is the whole.

pub mod console;
mod control;
pub mod device;
mod http;
mod pairing;
mod permit;
mod picture;
mod report;
pub mod rtsp;
mod sound;
mod stream;

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use punktfunk_core::gamestream::certificate::Certificate;
use punktfunk_core::gamestream::query::encode_hex;
use punktfunk_core::gamestream::sdp::Encryption;
use punktfunk_core::seal::SessionKey;
use rustls::ClientConfig;
use tokio::runtime::Runtime;

use self::device::Device;
use self::http::{Document, HttpError};
use self::pairing::Pairing;
use self::permit::Permit;
use self::rtsp::{Choice, Negotiation, SessionUrl, SetUp};
use self::stream::{Plan, Stream};
use crate::mgmt::client::{Client, ClientError};
use crate::store::ClientId;

pub use permit::Eraser;
pub use report::{Counts, Report, Step, Taken, Verdict};

/// No longer than this without progress, unless told otherwise.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// No longer than this in all: shorter than the permit lives.
pub const LIMIT: Duration = Duration::from_secs(270);

/// The title of the one app that the self-test sees.
const APP: &str = "Test card";
/// Where plain HTTP is if the host does not say.
const USUAL_HTTP: u16 = 47_989;
/// A size that every path carries.
const PACKET_BYTES: u16 = 1_024;

/// What is tested, and how long that may take.
#[derive(Debug, Clone)]
pub struct Options {
    /// The host's local socket; `None` looks for it.
    pub socket: Option<PathBuf>,
    /// Pixels across.
    pub width: u32,
    /// Pixels down.
    pub height: u32,
    /// Pictures per second.
    pub fps: u32,
    /// Frames that are looked at.
    pub frames: usize,
    /// Of the whole stream.
    pub bitrate_kbps: u32,
    /// No longer without progress.
    pub patience: Duration,
    /// No longer in all.
    pub limit: Duration,
    /// Doors that are entered elsewhere than the host says.
    pub detours: Detours,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            socket: None,
            width: 1280,
            height: 720,
            fps: 30,
            frames: 60,
            bitrate_kbps: 5_000,
            patience: PATIENCE,
            limit: LIMIT,
            detours: Detours::default(),
        }
    }
}

/// Other addresses for single doors, so that something can stand between the self-test and one of them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Detours {
    /// Instead of plain HTTP.
    pub http: Option<SocketAddr>,
    /// Instead of HTTPS.
    pub https: Option<SocketAddr>,
    /// Instead of RTSP.
    pub rtsp: Option<SocketAddr>,
    /// Instead of control.
    pub control: Option<SocketAddr>,
    /// Instead of video.
    pub video: Option<SocketAddr>,
    /// Instead of audio.
    pub audio: Option<SocketAddr>,
}

/// Tests the host. Blocks until the verdict is there, at most a little longer than [`Options::limit`]. `tell` hears of
/// each step when it is over. `eraser` can erase what the test has at the host, should it be interrupted.
pub fn run(options: &Options, eraser: &Eraser, tell: &mut dyn FnMut(&Taken)) -> Report {
    let began = Instant::now();
    let mut course = Course {
        options,
        eraser,
        tell,
        steps: Vec::new(),
        counts: Counts { frames_wanted: options.frames as u64, ..Counts::default() },
        step_began: began,
        until: began + options.limit,
    };
    let (verdict, reason) = match course.walk() {
        Ok(()) => (Verdict::Green, None),
        Err(Stop::NotRun(reason)) => (Verdict::NotRun, Some(reason)),
        Err(Stop::Red(step, reason)) => {
            course.over(step, false, reason.clone());
            (Verdict::Red, Some(format!("{step}: {reason}")))
        }
    };
    let Course { steps, counts, .. } = course;
    Report { verdict, reason, steps, counts, took_ms: report::millis(began.elapsed()) }
}

/// Why the course ends before its end.
enum Stop {
    NotRun(String),
    Red(Step, String),
}

fn red(step: Step) -> impl Fn(String) -> Stop {
    move |reason| Stop::Red(step, reason)
}

/// The way through the doors.
struct Course<'a> {
    options: &'a Options,
    eraser: &'a Eraser,
    tell: &'a mut dyn FnMut(&Taken),
    steps: Vec<Taken>,
    counts: Counts,
    step_began: Instant,
    until: Instant,
}

/// What is known once the host is.
struct Guest {
    runtime: Runtime,
    device: Device,
    unique_id: String,
    http: SocketAddr,
    https: SocketAddr,
}

/// What the host promised.
struct Launched {
    key: SessionKey,
    key_id: u32,
    url: SessionUrl,
}

impl Course<'_> {
    fn walk(&mut self) -> Result<(), Stop> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Stop::NotRun(format!("no runtime could be started: {error}")))?;
        let device = Device::stock().map_err(|error| Stop::NotRun(error.to_string()))?;
        let (permit, near) = self.permit(&device)?;
        let guest = self.meet(runtime, device, near)?;
        let host = self.pair(&guest, &permit)?;
        let tls = guest
            .device
            .tls(host.der().to_vec())
            .map_err(|error| Stop::Red(Step::Https, error.to_string()))?;
        let app = self.enter(&guest, &permit, &tls)?;
        let launched = self.launch(&guest, &tls, app)?;
        let (set_up, encrypted) = self.negotiate(&guest, &launched)?;
        self.stream(&guest, &launched, &set_up, encrypted)?;
        self.quit(&guest, &tls)?;
        self.erase(permit, &guest, &tls)
    }

    fn over(&mut self, step: Step, passed: bool, detail: String) {
        let took_ms = report::millis(self.step_began.elapsed());
        let taken = Taken { step, passed, took_ms, detail };
        (self.tell)(&taken);
        self.steps.push(taken);
        self.step_began = Instant::now();
    }

    fn passed(&mut self, step: Step, detail: impl Into<String>) {
        self.over(step, true, detail.into());
    }

    fn permit(&mut self, device: &Device) -> Result<(Permit, SocketAddr), Stop> {
        let trouble = |error: ClientError| match error {
            ClientError::NotRunning { .. } | ClientError::Denied { .. } => {
                Stop::NotRun(error.to_string())
            }
            ClientError::Problem(problem) if problem.code == "self-test-runs" => {
                Stop::NotRun(problem.detail)
            }
            other => Stop::Red(Step::Permit, other.to_string()),
        };
        let host = match &self.options.socket {
            Some(socket) => Client::at(socket),
            None => Client::find(),
        };
        let host = host.map_err(trouble)?;
        let landing = host.landing().map_err(trouble)?;
        let id = ClientId::of_certificate(&device.certificate).to_string();
        let (permit, given) = Permit::take(host.socket(), id, self.eraser).map_err(trouble)?;
        let near = given.near.unwrap_or((Ipv4Addr::LOCALHOST, USUAL_HTTP).into());
        let near = self.options.detours.http.unwrap_or(near);
        self.passed(Step::Permit, format!("\"{}\" {} lets it in", landing.name, landing.version));
        Ok((permit, near))
    }

    fn meet(&mut self, runtime: Runtime, device: Device, http: SocketAddr) -> Result<Guest, Stop> {
        let fail = red(Step::Http);
        let unique_id =
            encode_hex(&pairing::random::<8>().map_err(|error| fail(error.to_string()))?);
        let target = format!("/serverinfo?uniqueid={unique_id}");
        let info = self.ask(&runtime, http, None, &target).map_err(&fail)?;
        let port = info.value("HttpsPort").and_then(|port| port.parse().ok());
        let port: u16 = port.ok_or_else(|| fail("serverinfo names no HTTPS port".to_owned()))?;
        if info.value("PairStatus") != Some("0") {
            return Err(fail("a stranger is told that it is paired".to_owned()));
        }
        self.passed(Step::Http, format!("serverinfo at {http}"));
        let https = self.options.detours.https.unwrap_or(SocketAddr::new(http.ip(), port));
        Ok(Guest { runtime, device, unique_id, http, https })
    }

    fn pairing<'a>(&self, guest: &'a Guest, permit: &'a Permit) -> Pairing<'a> {
        Pairing {
            runtime: &guest.runtime,
            http: guest.http,
            device: &guest.device,
            permit,
            unique_id: &guest.unique_id,
            patience: self.patience(),
        }
    }

    fn pair(&mut self, guest: &Guest, permit: &Permit) -> Result<Certificate, Stop> {
        let host = self
            .pairing(guest, permit)
            .run()
            .map_err(|error| Stop::Red(Step::Pairing, error.to_string()))?;
        self.passed(Step::Pairing, "four steps and a PIN");
        Ok(host)
    }

    /// Step 5 of pairing, serverinfo as a client sees it, and the list of apps, which must be the Test card alone.
    fn enter(
        &mut self,
        guest: &Guest,
        permit: &Permit,
        tls: &Arc<ClientConfig>,
    ) -> Result<u32, Stop> {
        let fail = red(Step::Https);
        self.pairing(guest, permit)
            .confirm(guest.https, tls)
            .map_err(|error| fail(format!("pairing, {error}")))?;
        let info = self.ask_tls(guest, tls, "/serverinfo?").map_err(&fail)?;
        if info.value("PairStatus") != Some("1") {
            return Err(fail("serverinfo does not know the client".to_owned()));
        }
        let list = self.ask_tls(guest, tls, "/applist?").map_err(&fail)?;
        let apps: Vec<_> = list.values("AppTitle").into_iter().zip(list.values("ID")).collect();
        let [(APP, id)] = apps[..] else {
            return Err(fail(format!("{} apps are listed, not the Test card alone", apps.len())));
        };
        let id = id.parse().map_err(|_| fail("the Test card's number is none".to_owned()))?;
        self.passed(Step::Https, "the client is known, and sees the Test card");
        Ok(id)
    }

    fn launch(
        &mut self,
        guest: &Guest,
        tls: &Arc<ClientConfig>,
        app: u32,
    ) -> Result<Launched, Stop> {
        let fail = red(Step::Launch);
        let randomness = |error: pairing::PairingFailure| fail(error.to_string());
        let key: [u8; 16] = pairing::random().map_err(randomness)?;
        let key_id = u32::from_le_bytes(pairing::random().map_err(randomness)?);
        let Options { width, height, fps, .. } = self.options;
        // Clients print the number signed.
        let target = format!(
            "/launch?appid={app}&mode={width}x{height}x{fps}&additionalStates=1&sops=0&rikey={}\
             &rikeyid={}&localAudioPlayMode=0&surroundAudioInfo=196610&corever=1&",
            encode_hex(&key),
            key_id.cast_signed(),
        );
        let answer = self.ask_tls(guest, tls, &target).map_err(&fail)?;
        let url = answer.value("sessionUrl0").unwrap_or_default();
        let url = SessionUrl::parse(url).map_err(|error| fail(error.to_string()))?;
        self.passed(Step::Launch, format!("{width}x{height} at {fps} Hz"));
        Ok(Launched { key: SessionKey::new(key), key_id, url })
    }

    fn negotiate(
        &mut self,
        guest: &Guest,
        launched: &Launched,
    ) -> Result<(SetUp, Encryption), Stop> {
        let fail = red(Step::Rtsp);
        let SessionUrl { to, sealed } = launched.url;
        let to = self.options.detours.rtsp.unwrap_or(to);
        let choice = self.choice();
        let mut negotiation = Negotiation::new(to, sealed.then_some(&launched.key));
        let negotiate = async {
            let (set_up, encrypted) = negotiation.set_up().await?;
            negotiation.play(&choice, encrypted).await?;
            Ok::<_, rtsp::RtspError>((set_up, encrypted))
        };
        let negotiated = self
            .within(&guest.runtime, negotiate)
            .map_err(&fail)?
            .map_err(|error| fail(error.to_string()))?;
        let sealing = [
            ("RTSP", sealed),
            ("control", true),
            ("video", negotiated.1.video),
            ("audio", negotiated.1.audio),
        ];
        let sealing: Vec<&str> =
            sealing.into_iter().filter(|(_, on)| *on).map(|(name, _)| name).collect();
        self.passed(Step::Rtsp, format!("seven requests; encrypted: {}", sealing.join(", ")));
        Ok(negotiated)
    }

    fn stream(
        &mut self,
        guest: &Guest,
        launched: &Launched,
        set_up: &SetUp,
        encrypted: Encryption,
    ) -> Result<(), Stop> {
        let detours = self.options.detours;
        let at = |detour: Option<SocketAddr>, port: u16| {
            detour.unwrap_or(SocketAddr::new(guest.http.ip(), port))
        };
        let plan = Plan {
            key: &launched.key,
            key_id: launched.key_id,
            set_up,
            encrypted,
            control: at(detours.control, set_up.control),
            video: at(detours.video, set_up.video),
            audio: at(detours.audio, set_up.audio),
            choice: self.choice(),
            frames: self.options.frames,
            patience: self.options.patience,
            until: self.until,
        };
        let began = Instant::now();
        let stopped = |failure: stream::Failure| Stop::Red(failure.step, failure.reason);
        let mut stream = Stream::open(plan).map_err(stopped)?;
        let outcome = stream.run(&mut |step, detail| {
            // The three run at once, so each took the time since they began.
            self.step_began = began;
            self.passed(step, detail);
        });
        self.counts = stream.counts();
        self.step_began = if outcome.is_ok() { Instant::now() } else { began };
        outcome.map_err(stopped)
    }

    fn quit(&mut self, guest: &Guest, tls: &Arc<ClientConfig>) -> Result<(), Stop> {
        self.ask_tls(guest, tls, "/cancel?").map_err(red(Step::Quit))?;
        self.passed(Step::Quit, "the session is over");
        Ok(())
    }

    /// The identity is erased; that it is, the host must show.
    fn erase(
        &mut self,
        permit: Permit,
        guest: &Guest,
        tls: &Arc<ClientConfig>,
    ) -> Result<(), Stop> {
        let fail = red(Step::Erase);
        permit.erase().map_err(|error| fail(error.to_string()))?;
        let (runtime, target) =
            (&guest.runtime, format!("/serverinfo?uniqueid={}", guest.unique_id));
        let answer = self
            .within(runtime, http::get(guest.https, Some(tls), &target))
            .map_err(&fail)?
            .map_err(|error| fail(error.to_string()))?;
        if answer.code() != Some(401) {
            return Err(fail("the host still knows the erased certificate".to_owned()));
        }
        self.passed(Step::Erase, "the host does not know the certificate any more");
        Ok(())
    }

    fn choice(&self) -> Choice {
        let Options { width, height, fps, bitrate_kbps, .. } = *self.options;
        Choice { width, height, fps, bitrate_kbps, packet_bytes: PACKET_BYTES }
    }

    /// How long one answer may take.
    fn patience(&self) -> Duration {
        self.options.patience.min(self.until.saturating_duration_since(Instant::now()))
    }

    fn within<T>(&self, runtime: &Runtime, act: impl Future<Output = T>) -> Result<T, String> {
        let patience = self.patience();
        runtime
            .block_on(async { tokio::time::timeout(patience, act).await })
            .map_err(|_| format!("no answer in {} s", patience.as_secs()))
    }

    fn ask_tls(
        &self,
        guest: &Guest,
        tls: &Arc<ClientConfig>,
        target: &str,
    ) -> Result<Document, String> {
        let target = format!("{target}uniqueid={}", guest.unique_id);
        self.ask(&guest.runtime, guest.https, Some(tls), &target)
    }

    fn ask(
        &self,
        runtime: &Runtime,
        to: SocketAddr,
        tls: Option<&Arc<ClientConfig>>,
        target: &str,
    ) -> Result<Document, String> {
        let path = target.split('?').next().unwrap_or_default();
        let asked = self.within(runtime, http::get(to, tls, target))?;
        asked
            .and_then(|document| document.accepted(path))
            .map_err(|error: HttpError| error.to_string())
    }
}
