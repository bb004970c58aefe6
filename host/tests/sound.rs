//! A real sound server, and real programs that play: what arrives in the host, and what follows when parts die.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test may end where it stands")]

use std::f64::consts::TAU;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use punktfunk_host::agent::{Agent, AgentStarter, Process, ProcessSpec, ProfileNumber};
use punktfunk_host::audio::pipewire::{PipewireSource, SoundOptions, SoundServer, probe};
use punktfunk_host::audio::{AudioSource, SAMPLE_RATE};
use punktfunk_host::clock;
use rustix::process::{Pid, Signal, kill_process};

mod agents;

/// For a very loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The channels in the order of the samples.
const CHANNEL_NAMES: [&str; 8] = ["FL", "FR", "FC", "LFE", "RL", "RR", "SL", "SR"];

/// A session's agent with a sound server that programs can play to.
struct World {
    // Dropped before the folder.
    server: SoundServer,
    agent: Arc<dyn Agent>,
    folder: tempfile::TempDir,
}

impl World {
    fn new(channels: u8) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let agent = agents::starter(folder.path()).start(ProfileNumber(0)).unwrap();
        let manager = probe().unwrap().kind;
        let options = SoundOptions { channels, capture: vec![capture()], manager };
        let mut server = SoundServer::start(&agent, options).unwrap();
        assert!(server.settle(PATIENCE), "the sound server did not come up");
        Self { server, agent, folder }
    }

    /// Starts a program that plays another tone on every channel, at half of full scale, for half a minute.
    fn play(&self, channels: u8) -> Box<dyn Process> {
        let file = self.folder.path().join("tone.wav");
        if !file.exists() {
            write_tones(&file, channels, 30);
        }
        let map = CHANNEL_NAMES[..usize::from(channels)].join(",");
        let file = file.into_os_string().into_string().unwrap();
        self.agent
            .spawn(&ProcessSpec {
                program: "pw-play".to_owned(),
                arguments: vec!["--channel-map".to_owned(), map, file],
                environment: self.server.child_env(),
                keeps_last_words: false,
            })
            .unwrap()
    }

    /// The process of this session whose command line has this word.
    fn find(&self, word: &str) -> Option<Pid> {
        let has = |file: PathBuf, text: &str| {
            let bytes = std::fs::read(file).unwrap_or_default();
            bytes.windows(text.len()).any(|window| window == text.as_bytes())
        };
        let folder = self.agent.runtime_dir().to_str().unwrap();
        let entries = std::fs::read_dir("/proc").unwrap().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        pids.filter(|pid| {
            let of = |file: &str| Path::new("/proc").join(pid.to_string()).join(file);
            has(of("cmdline"), word) && has(of("environ"), folder)
        })
        .find_map(Pid::from_raw)
    }
}

/// Beside this test, where one that is run as another user finds it, or beside the daemon.
fn capture() -> String {
    let places =
        [std::env::current_exe().unwrap(), PathBuf::from(env!("CARGO_BIN_EXE_punktfunk-host"))];
    let programs = places.map(|place| place.with_file_name("punktfunk-sound"));
    let found = programs.into_iter().find(|program| program.is_file());
    let found = found.expect("build the workspace first: cargo build --workspace");
    found.into_os_string().into_string().unwrap()
}

fn hertz(channel: u8) -> f64 {
    f64::from(500 + 100 * u32::from(channel))
}

fn write_tones(file: &Path, channels: u8, seconds: u32) {
    let frames = seconds * SAMPLE_RATE;
    let bytes = frames * u32::from(channels) * 2;
    let mut wave = [b"RIFF", &(36 + bytes).to_le_bytes()[..], b"WAVEfmt "].concat();
    wave.extend([16, 0, 0, 0, 1, 0, channels, 0]);
    wave.extend(SAMPLE_RATE.to_le_bytes());
    wave.extend((SAMPLE_RATE * u32::from(channels) * 2).to_le_bytes());
    wave.extend([channels * 2, 0, 16, 0]);
    wave.extend([b"data", &bytes.to_le_bytes()[..]].concat());
    for frame in 0..frames {
        for channel in 0..channels {
            let turn = hertz(channel) * f64::from(frame) / f64::from(SAMPLE_RATE);
            wave.extend(((16_384.0 * (TAU * turn).sin()) as i16).to_le_bytes());
        }
    }
    std::fs::write(file, wave).unwrap();
}

/// The loudness of one pitch, 1.0 for a sine of full scale.
fn loudness(samples: &[f32], hertz: f64) -> f64 {
    let (mut real, mut imaginary, mut weight) = (0.0, 0.0, 0.0);
    for (index, sample) in samples.iter().enumerate() {
        let window = 0.5 - 0.5 * (TAU * index as f64 / samples.len() as f64).cos();
        let (sine, cosine) = (TAU * hertz * index as f64 / f64::from(SAMPLE_RATE)).sin_cos();
        real += f64::from(*sample) * window * cosine;
        imaginary += f64::from(*sample) * window * sine;
        weight += window;
    }
    2.0 * real.hypot(imaginary) / weight
}

/// Reads until a tenth of a second sounds as it was played: each channel's tone on that channel, and nowhere else.
fn hear_the_tones(source: &mut PipewireSource, channels: u8, looking_after: &mut dyn FnMut()) {
    let deadline = Instant::now() + PATIENCE;
    let mut period = vec![0.0; 240 * usize::from(channels)];
    let mut heard = vec![Vec::new(); usize::from(channels)];
    let mut closest = String::from("nothing at all");
    loop {
        assert!(Instant::now() < deadline, "the tones were not heard; {closest}");
        looking_after();
        source.read(&mut period).unwrap();
        if period.iter().all(|sample| *sample == 0.0) {
            heard.iter_mut().for_each(Vec::clear);
            continue;
        }
        for (index, sample) in period.iter().enumerate() {
            heard[index % usize::from(channels)].push(*sample);
        }
        if heard[0].len() < 4_800 {
            continue;
        }
        let levels: Vec<Vec<f64>> = heard
            .iter()
            .map(|samples| (0..channels).map(|tone| loudness(samples, hertz(tone))).collect())
            .collect();
        let right = levels.iter().enumerate().all(|(channel, levels)| {
            levels.iter().enumerate().all(|(tone, level)| {
                let expected = if tone == channel { 0.5 } else { 0.0 };
                (level - expected).abs() < 0.02
            })
        });
        if right {
            return;
        }
        closest = format!("{levels:.2?}");
        heard.iter_mut().for_each(Vec::clear);
    }
}

fn hear_silence(source: &mut PipewireSource, channels: u8) {
    let deadline = Instant::now() + PATIENCE;
    let mut period = vec![0.0; 240 * usize::from(channels)];
    let mut silent = 0;
    while silent < 40 {
        assert!(Instant::now() < deadline, "it did not become silent");
        source.read(&mut period).unwrap();
        silent = if period.iter().any(|sample| *sample != 0.0) { 0 } else { silent + 1 };
    }
}

fn each_tone_arrives_on_its_channel(channels: u8) {
    let mut world = World::new(channels);
    let mut source = world.server.source(channels).unwrap();
    hear_silence(&mut source, channels);
    let playing = world.play(channels);
    hear_the_tones(&mut source, channels, &mut || {});
    drop(playing);
    hear_silence(&mut source, channels);
    let _playing = world.play(channels);
    hear_the_tones(&mut source, channels, &mut || {});
}

#[test]
#[ignore = "needs PipeWire, as an unprivileged user"]
fn stereo_arrives() {
    each_tone_arrives_on_its_channel(2);
}

#[test]
#[ignore = "needs PipeWire, as an unprivileged user"]
fn five_one_arrives_in_the_order_of_the_stream() {
    each_tone_arrives_on_its_channel(6);
}

#[test]
#[ignore = "needs PipeWire, as an unprivileged user"]
fn seven_one_arrives_in_the_order_of_the_stream() {
    each_tone_arrives_on_its_channel(8);
}

#[test]
#[ignore = "needs PipeWire, as an unprivileged user"]
fn a_sink_follows_the_channels_of_the_stream() {
    let mut world = World::new(2);
    let mut source = world.server.source(6).unwrap();
    assert!(world.server.settle(PATIENCE));
    let _playing = world.play(6);
    hear_the_tones(&mut source, 6, &mut || world.server.check());
}

#[test]
#[ignore = "needs PipeWire, as an unprivileged user"]
fn silence_keeps_the_pace_of_sound_and_its_time() {
    let mut world = World::new(2);
    let mut source = world.server.source(2).unwrap();
    let mut period = [1.0; 960];
    let first = source.read(&mut period).unwrap();
    for turn in 1..100 {
        let begins = source.read(&mut period).unwrap();
        assert_eq!(period, [0.0; 960]);
        // A reader that has slept begins anew.
        assert!(begins.since(first) >= Duration::from_millis(10 * turn));
    }
    let _playing = world.play(2);
    let mut sounding = 0;
    while sounding < 100 {
        let captured = source.read(&mut period).unwrap();
        sounding += usize::from(period.iter().any(|sample| *sample != 0.0));
        assert!(captured <= clock::now());
    }
}

/// Kills a part; sound goes on in silence, and a program is heard once the part is back.
fn sound_comes_back_after(part: &str) {
    let mut world = World::new(2);
    let mut source = world.server.source(2).unwrap();
    let playing = world.play(2);
    hear_the_tones(&mut source, 2, &mut || {});
    let before = world.find(part).expect("the part runs");
    kill_process(before, Signal::KILL).unwrap();
    drop(playing);
    hear_silence(&mut source, 2);
    let deadline = Instant::now() + PATIENCE;
    while world.find(part).is_none_or(|now| now == before) {
        assert!(Instant::now() < deadline, "{part} was not started again");
        world.server.check();
        source.read(&mut [0.0; 480]).unwrap();
    }
    // A program that comes too early finds no server and ends; so people start it again.
    let mut playing = world.play(2);
    hear_the_tones(&mut source, 2, &mut || {
        world.server.check();
        if playing.wait(Duration::ZERO) {
            playing = world.play(2);
        }
    });
}

#[test]
#[ignore = "needs PipeWire, as an unprivileged user"]
fn a_killed_sound_server_is_silence_and_comes_back() {
    sound_comes_back_after("pf-pipewire.conf");
}

#[test]
#[ignore = "needs PipeWire, as an unprivileged user"]
fn a_killed_session_manager_is_silence_and_comes_back() {
    sound_comes_back_after("wireplumber");
}

#[test]
#[ignore = "needs PipeWire, as an unprivileged user"]
fn a_killed_capture_is_silence_and_comes_back() {
    sound_comes_back_after("punktfunk-sound");
}

#[test]
#[ignore = "needs PipeWire, as an unprivileged user"]
fn programs_that_speak_pulseaudio_find_the_server() {
    let mut world = World::new(2);
    let before = world.find("pf-pulse.conf").expect("it runs");
    world.agent.connect("pf-pulse").unwrap();
    let place = world.server.child_env()["PULSE_SERVER"].clone();
    let usual = world.agent.runtime_dir().join("pulse/native");
    assert_eq!(place, format!("unix:{}", usual.display()));
    std::os::unix::net::UnixStream::connect(&usual).unwrap();
    kill_process(before, Signal::KILL).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while world.agent.connect("pf-pulse").is_err() || world.find("pf-pulse.conf") == Some(before) {
        assert!(Instant::now() < deadline, "it was not started again");
        world.server.check();
        std::thread::yield_now();
    }
}

#[test]
#[ignore = "needs PipeWire, as an unprivileged user"]
fn what_is_here_is_told_with_its_versions() {
    let told = probe().unwrap().to_string();
    assert!(told.starts_with("PipeWire ") && told.contains(" with WirePlumber 0."), "{told}");
}
