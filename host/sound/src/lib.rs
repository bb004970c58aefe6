//! Runs as a session's user: captures what its programs play and hands the samples to the punktfunk host.
//!
//! A client of PipeWire maps whatever memory the server sends and trusts what stands in it. In a session the server is
//! as little trusted as a game, because both run under one user; so the host is no client of it. This program is: it
//! captures the monitor of the session's sink and writes the bare samples - 32-bit floats, little endian, interleaved,
//! 48 kHz - into a Unix socket, where the host reads them as it would read a file from a stranger.
//!
//! It listens on that socket only once its stream is linked to the sink, that is once PipeWire and the session manager
//! both work. The newest connection gets the samples, from then on; what a reader is too slow for is left out in whole
//! periods. While nothing plays there is nothing to write and nothing runs. When the server goes, so does this program.

mod outlet;

use std::cell::RefCell;
use std::io::Cursor;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::rc::Rc;

use pipewire::context::ContextRc;
use pipewire::keys;
use pipewire::main_loop::MainLoopRc;
use pipewire::properties::properties;
use pipewire::spa::param::ParamType;
use pipewire::spa::param::audio::{AudioFormat, AudioInfoRaw, MAX_CHANNELS};
use pipewire::spa::pod::serialize::PodSerializer;
use pipewire::spa::pod::{Object, Pod, Value};
use pipewire::spa::support::system::IoFlags;
use pipewire::spa::sys as spa_sys;
use pipewire::spa::utils::{Direction, SpaTypes};
use pipewire::stream::{StreamFlags, StreamListener, StreamRc, StreamState};
use pipewire::types::ObjectType;

use outlet::Outlet;

/// The sink whose monitor is captured.
pub const SINK_NAME: &str = "punktfunk";

/// The socket in the session's runtime folder where the samples are to be had.
pub const SOCKET_NAME: &str = "pf-sound";

/// Samples per second and channel.
pub const SAMPLE_RATE: u32 = 48_000;

/// The channels by number, in the order of the samples: FL FR, FL FR FC LFE RL RR, and SL SR after them.
pub const CHANNEL_NAMES: [&str; 8] = ["FL", "FR", "FC", "LFE", "RL", "RR", "SL", "SR"];

/// Samples per channel that are captured at a time: 5.3 ms.
pub const QUANTUM_SAMPLES: u32 = 256;

const POSITIONS: [u32; 8] = [
    spa_sys::SPA_AUDIO_CHANNEL_FL,
    spa_sys::SPA_AUDIO_CHANNEL_FR,
    spa_sys::SPA_AUDIO_CHANNEL_FC,
    spa_sys::SPA_AUDIO_CHANNEL_LFE,
    spa_sys::SPA_AUDIO_CHANNEL_RL,
    spa_sys::SPA_AUDIO_CHANNEL_RR,
    spa_sys::SPA_AUDIO_CHANNEL_SL,
    spa_sys::SPA_AUDIO_CHANNEL_SR,
];

/// What to capture, and where to.
#[derive(Debug, Clone)]
pub struct Options {
    /// Channels: 2, 6 or 8.
    pub channels: u8,
    /// Where to listen.
    pub socket: PathBuf,
}

/// Why the capture ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CaptureError {
    /// It never began.
    #[error("the capture of sound did not start: {reason}")]
    Start {
        /// What was missing or refused.
        reason: String,
    },
    /// The sound server has gone or has refused the stream.
    #[error("the sound server is lost: {reason}")]
    Lost {
        /// What it said.
        reason: String,
    },
}

/// What the callbacks share. All of them run on one thread, inside `MainLoopRc::run`.
struct Capture {
    options: Options,
    main_loop: MainLoopRc,
    outlet: Outlet,
    listener: Option<UnixListener>,
    ending: Option<CaptureError>,
}

impl Capture {
    fn end(&mut self, why: CaptureError) {
        self.ending.get_or_insert(why);
        self.main_loop.quit();
    }
}

/// Captures until the sound server goes.
///
/// # Errors
/// Why it did not start or had to end; there is no other end.
pub fn run(options: &Options) -> Result<(), CaptureError> {
    if ![2, 6, 8].contains(&options.channels) {
        let reason = format!("there are 2, 6 or 8 channels, not {}", options.channels);
        return Err(CaptureError::Start { reason });
    }
    pipewire::init();
    let main_loop = MainLoopRc::new(None).map_err(start("make a loop"))?;
    let capture = Rc::new(RefCell::new(Capture {
        options: options.clone(),
        main_loop: main_loop.clone(),
        outlet: Outlet::new(usize::from(options.channels) * size_of::<f32>()),
        listener: None,
        ending: None,
    }));
    let without_bus = properties! { "support.dbus" => "false" };
    let context = ContextRc::new(&main_loop, Some(without_bus)).map_err(start("make a context"))?;
    let core = context.connect_rc(None).map_err(start("connect to PipeWire"))?;
    let _core_events = core
        .add_listener_local()
        .error({
            let capture = Rc::clone(&capture);
            move |id, _, _, text| {
                if id == pipewire::core::PW_ID_CORE {
                    capture.borrow_mut().end(CaptureError::Lost { reason: text.to_owned() });
                }
            }
        })
        .register();

    let latency = format!("{QUANTUM_SAMPLES}/{SAMPLE_RATE}");
    let stream_properties = properties! {
        *keys::MEDIA_TYPE => "Audio",
        *keys::MEDIA_CATEGORY => "Capture",
        *keys::MEDIA_ROLE => "Screen",
        *keys::NODE_NAME => "punktfunk-capture",
        *keys::STREAM_CAPTURE_SINK => "true",
        *keys::NODE_LATENCY => latency,
        // The sink sleeps while no program plays, although it is captured.
        "node.passive" => "true",
        "target.object" => SINK_NAME,
    };
    let stream = StreamRc::new(core.clone(), "punktfunk-capture", stream_properties)
        .map_err(start("make a stream"))?;
    let _stream_events = listen(&stream, &capture).map_err(start("listen to the stream"))?;
    let format = format_bytes(options.channels)?;
    let format = Pod::from_bytes(&format).ok_or_else(|| internal("read the format's bytes"))?;
    stream
        .connect(
            Direction::Input,
            None,
            StreamFlags::AUTOCONNECT | StreamFlags::MAP_BUFFERS,
            &mut [format],
        )
        .map_err(start("connect the stream"))?;
    let registry = core.get_registry_rc().map_err(start("look around"))?;
    let _links = registry
        .add_listener_local()
        .global({
            let (capture, stream) = (Rc::clone(&capture), stream.clone());
            move |global| {
                let input = global.props.as_ref().and_then(|props| props.get("link.input.node"));
                let ours = input.is_some_and(|node| node == stream.node_id().to_string());
                if global.type_ == ObjectType::Link && ours {
                    open_socket(&mut capture.borrow_mut());
                }
            }
        })
        .register();
    // Until the stream is linked, or the end.
    main_loop.run();
    let doorbell = capture.borrow().listener.as_ref().map(UnixListener::try_clone);
    if let Some(doorbell) = doorbell {
        let doorbell = doorbell.map_err(start("share the socket"))?;
        let guests = Rc::clone(&capture);
        let _door = main_loop.loop_().add_io(doorbell, IoFlags::IN, move |door| {
            while let Ok((guest, _)) = door.accept() {
                guests.borrow_mut().outlet.serve(guest);
            }
        });
        main_loop.run();
    }
    let ending = capture.borrow_mut().ending.take();
    Err(ending.unwrap_or_else(|| CaptureError::Lost { reason: "the loop ended".to_owned() }))
}

fn listen(
    stream: &StreamRc,
    capture: &Rc<RefCell<Capture>>,
) -> Result<StreamListener<Rc<RefCell<Capture>>>, pipewire::Error> {
    stream
        .add_local_listener_with_user_data(Rc::clone(capture))
        .state_changed(|_, capture, _, new| {
            if let StreamState::Error(reason) = new {
                capture.borrow_mut().end(CaptureError::Lost { reason });
            }
        })
        .process(|stream, capture| {
            let Some(mut buffer) = stream.dequeue_buffer() else { return };
            let Some(data) = buffer.datas_mut().first_mut() else { return };
            let (offset, size) = (data.chunk().offset() as usize, data.chunk().size() as usize);
            let Some(samples) = data.data().and_then(|data| data.get(offset..)?.get(..size)) else {
                return;
            };
            capture.borrow_mut().outlet.write(samples);
        })
        .register()
}

/// Begins to listen, with the first link; the loop is left to look after it.
fn open_socket(capture: &mut Capture) {
    if capture.listener.is_some() {
        return;
    }
    let path = &capture.options.socket;
    // One that is there was left by a capture that was killed.
    let _ = std::fs::remove_file(path);
    let opened = UnixListener::bind(path).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    match opened {
        Ok(listener) => {
            capture.listener = Some(listener);
            capture.main_loop.quit();
        }
        Err(error) => {
            let reason = format!("{} cannot be listened on: {error}", path.display());
            capture.end(CaptureError::Start { reason });
        }
    }
}

/// The format to ask for, as PipeWire writes it.
fn format_bytes(channels: u8) -> Result<Vec<u8>, CaptureError> {
    let mut info = AudioInfoRaw::new();
    info.set_format(AudioFormat::F32LE);
    info.set_rate(SAMPLE_RATE);
    info.set_channels(channels.into());
    let mut position = [0; MAX_CHANNELS];
    let count = usize::from(channels).min(POSITIONS.len());
    position[..count].copy_from_slice(&POSITIONS[..count]);
    info.set_position(position);
    let format = Value::Object(Object {
        type_: SpaTypes::ObjectParamFormat.as_raw(),
        id: ParamType::EnumFormat.as_raw(),
        properties: info.into(),
    });
    match PodSerializer::serialize(Cursor::new(Vec::new()), &format) {
        Ok((cursor, _)) => Ok(cursor.into_inner()),
        Err(_) => Err(internal("write the format")),
    }
}

fn start<E: std::fmt::Display>(doing: &'static str) -> impl Fn(E) -> CaptureError {
    move |error| CaptureError::Start { reason: format!("could not {doing}: {error}") }
}

fn internal(doing: &str) -> CaptureError {
    CaptureError::Start { reason: format!("could not {doing}") }
}
