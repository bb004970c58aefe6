//! What the sound server of a session is told: one sink that leads nowhere, no hardware, no bus, and nobody's settings.
//!
//! The server loads no ALSA, Bluetooth or camera modules, so there is no way from a session to the host's speakers.

use super::CHANNEL_NAMES;

/// The node name of the sink.
pub(super) const SINK_NAME: &str = "punktfunk";

/// The socket of the server itself.
pub(super) const SERVER_SOCKET: &str = "pipewire-0";

/// A socket for programs that speak PulseAudio's protocol, beside the one at its usual place, which lies in a folder of
/// its own.
pub(super) const PULSE_SOCKET: &str = "pf-pulse";

/// The configuration of `pipewire`: the graph and the sink. A quantum of 256 samples is 5.3 ms.
pub(super) fn server(channels: u8) -> String {
    let positions = CHANNEL_NAMES[..usize::from(channels).min(CHANNEL_NAMES.len())].join(" ");
    format!(
        r#"context.properties = {{
    core.daemon = true
    core.name = {SERVER_SOCKET}
    support.dbus = false
    default.clock.rate = 48000
    default.clock.allowed-rates = [ 48000 ]
    default.clock.quantum = 256
    default.clock.min-quantum = 128
    default.clock.max-quantum = 1024
}}
{SPA_LIBS}
context.modules = [
    {{ name = libpipewire-module-protocol-native }}
    {{ name = libpipewire-module-metadata }}
    {{ name = libpipewire-module-spa-node-factory }}
    {{ name = libpipewire-module-client-node }}
    {{ name = libpipewire-module-client-device }}
    {{ name = libpipewire-module-access }}
    {{ name = libpipewire-module-adapter }}
    {{ name = libpipewire-module-link-factory }}
    {{ name = libpipewire-module-session-manager }}
]
context.objects = [
    {{
        factory = adapter
        args = {{
            factory.name = support.null-audio-sink
            node.name = {SINK_NAME}
            node.description = "punktfunk"
            media.class = Audio/Sink
            object.linger = true
            audio.rate = 48000
            audio.channels = {channels}
            audio.position = [ {positions} ]
            monitor.channel-volumes = true
            priority.session = 2000
            priority.driver = 2000
        }}
    }}
]
"#
    )
}

/// The configuration of the process that speaks PulseAudio's protocol. `socket` is the path of [`PULSE_SOCKET`].
pub(super) fn pulse(socket: &str) -> String {
    format!(
        r#"context.properties = {{ support.dbus = false }}
{SPA_LIBS}
context.modules = [
    {{ name = libpipewire-module-protocol-native }}
    {{ name = libpipewire-module-client-node }}
    {{ name = libpipewire-module-adapter }}
    {{ name = libpipewire-module-metadata }}
    {{ name = libpipewire-module-protocol-pulse }}
]
pulse.properties = {{
    server.address = [ "unix:native" "unix:{socket}" ]
    pulse.min.quantum = 128/48000
}}
"#
    )
}

/// The configuration of WirePlumber 0.4, whose own knows only sessions with a bus, hardware and a disk to remember on.
pub(super) fn manager() -> String {
    format!(
        r#"context.properties = {{
    application.name = "WirePlumber of a punktfunk session"
    log.level = 2
    wireplumber.script-engine = lua-scripting
    support.dbus = false
}}
{SPA_LIBS}
context.modules = [
    {{ name = libpipewire-module-protocol-native }}
    {{ name = libpipewire-module-client-node }}
    {{ name = libpipewire-module-client-device }}
    {{ name = libpipewire-module-adapter }}
    {{ name = libpipewire-module-metadata }}
    {{ name = libpipewire-module-session-manager }}
]
wireplumber.components = [
    {{ name = libwireplumber-module-lua-scripting, type = module }}
    {{ name = {MANAGER_COMPONENTS_FILE}, type = config/lua }}
]
"#
    )
}

/// The file that [`MANAGER_COMPONENTS`] goes to.
pub(super) const MANAGER_COMPONENTS_FILE: &str = "pf-wireplumber.lua";

/// What WirePlumber 0.4 loads: what links programs to the default sink, and nothing else.
pub(super) const MANAGER_COMPONENTS: &str = r#"components = {}

local function module(name, args)
  components[name] = { "libwireplumber-module-" .. name, type = "module", args = args }
end

local function script(name, args)
  components[name] = { name, type = "script/lua", args = args }
end

local policy = {
  ["move"] = true,
  ["follow"] = true,
  ["filter.forward-format"] = false,
  ["audio.no-dsp"] = false,
  ["duck.level"] = 1.0,
}

module("metadata")
module("default-nodes", { ["use-persistent-storage"] = false })
module("si-node")
module("si-audio-adapter")
module("si-standard-link")
module("si-audio-endpoint")
module("default-nodes-api")
module("mixer-api")
script("access/access-default.lua", {})
script("create-item.lua", policy)
script("policy-node.lua", policy)
script("suspend-node.lua")
"#;

const SPA_LIBS: &str = "context.spa-libs = {
    audio.convert.* = audioconvert/libspa-audioconvert
    support.* = support/libspa-support
}";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sink_has_the_channels_of_the_stream_in_its_order() {
        for (channels, positions) in
            [(2, "[ FL FR ]"), (6, "[ FL FR FC LFE RL RR ]"), (8, "[ FL FR FC LFE RL RR SL SR ]")]
        {
            let text = server(channels);
            assert!(text.contains(&format!("audio.channels = {channels}\n")), "{text}");
            assert!(text.contains(positions), "{text}");
        }
    }

    #[test]
    fn nothing_here_finds_hardware_or_a_bus() {
        let all = [server(2), pulse("/run/x/pf-pulse"), manager(), MANAGER_COMPONENTS.to_owned()];
        for text in all {
            for word in ["alsa", "bluez", "v4l2", "libcamera", "jack", "rtkit", "portal"] {
                assert!(!text.contains(word), "{word} in {text}");
            }
            assert!(!text.contains("dbus = true"));
        }
    }
}
