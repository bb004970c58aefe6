//! The commands that talk to a running host over its local socket.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::Serialize;

use super::{ClientsCommand, OutputArguments, PairArguments, PairingCommand, SessionsArguments};
use crate::mgmt::client::Client;
use crate::mgmt::wire::{Fate, Finished, Trace};

/// How long `pair` waits for a device to finish after it got its PIN. Stock clients take a second or two.
const PAIRING_PATIENCE: Duration = Duration::from_secs(20);

/// Answers a request and waits for how it ends, so that a wrong PIN is told where it was typed.
pub(super) fn pair(arguments: PairArguments) -> anyhow::Result<ExitCode> {
    let host = Client::find()?;
    let PairArguments { mut pin, request, name } = arguments;
    let answered = host.answer(request, &pin, name.as_deref());
    zeroize::Zeroize::zeroize(&mut pin);
    let asking = answered?;
    println!("The device at {} has the PIN; pairing ...", asking.remote);

    match host.outcome(asking.id, PAIRING_PATIENCE)? {
        Some(end) => tell(&end),
        None => bail!(
            "the device did not finish pairing in {} seconds; it may show another PIN now, so \
             choose \"pair\" on it again",
            PAIRING_PATIENCE.as_secs()
        ),
    }
}

fn tell(end: &Finished) -> anyhow::Result<ExitCode> {
    match end.outcome.as_str() {
        "paired" => {
            println!("Paired \"{}\". It can play now.", end.device_name);
            Ok(ExitCode::SUCCESS)
        }
        "wrong-pin" => bail!(
            "the PIN was wrong, or the device gave up; choose \"pair\" on it again and type the \
             new PIN"
        ),
        "abandoned" => bail!("the device went away before it was paired; try again on it"),
        "replaced" => bail!("the device asked again meanwhile; type the PIN that it shows now"),
        other => bail!("the pairing ended ({other}); choose \"pair\" on the device again"),
    }
}

pub(super) fn pairing(command: &PairingCommand) -> anyhow::Result<ExitCode> {
    let host = Client::find()?;
    let desk = match command {
        PairingCommand::List(output) => {
            let desk = host.pairing()?;
            if output.json {
                return print_json(&desk);
            }
            desk
        }
        PairingCommand::Arm => host.arm(None)?,
        PairingCommand::Disarm => host.disarm()?,
    };
    match (desk.state.as_str(), desk.armed_seconds) {
        ("open", _) => println!("Devices may ask to be paired as long as the host runs."),
        (_, Some(seconds)) => println!("Devices may ask to be paired for {seconds} seconds."),
        _ => println!("No device may ask to be paired; allow it with: punktfunk-host pairing arm"),
    }
    for request in &desk.pending {
        println!(
            "  {}  {} at {}, waits {} more seconds for: punktfunk-host pair <PIN> --request {}",
            request.id, request.device_name, request.remote, request.expires_seconds, request.id
        );
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn clients(command: &ClientsCommand) -> anyhow::Result<ExitCode> {
    let host = Client::find()?;
    let clients = host.clients()?;
    match command {
        ClientsCommand::List(output) if output.json => return print_json(&clients),
        ClientsCommand::List(_) if clients.is_empty() => println!("No device is paired yet."),
        ClientsCommand::List(_) => {
            for client in &clients {
                let id = client.id.get(..12).unwrap_or(&client.id);
                let place = client.remote.map(|remote| format!(", last at {remote}"));
                println!("  {id}  {}{}", client.name, place.unwrap_or_default());
            }
        }
        ClientsCommand::Remove { id } => {
            let mut found = clients.iter().filter(|client| client.id.starts_with(id.as_str()));
            let client = found.next().with_context(|| format!("no device's id begins {id}"))?;
            if found.next().is_some() {
                bail!("several devices' ids begin {id}; give more of its digits");
            }
            host.remove_client(&client.id)?;
            println!("\"{}\" is forgotten; it must pair again to play.", client.name);
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn sessions(arguments: &SessionsArguments) -> anyhow::Result<ExitCode> {
    let host = Client::find()?;
    if let Some(session) = arguments.trace {
        let traces = host.traces(session)?;
        if arguments.output.json {
            return print_json(&traces);
        }
        traces.iter().for_each(print_trace);
        return Ok(ExitCode::SUCCESS);
    }
    let sessions = host.sessions()?;
    if arguments.output.json {
        return print_json(&sessions);
    }
    if sessions.is_empty() {
        println!("Nobody plays.");
    }
    for session in &sessions {
        let state = match (&session.ended, session.streaming) {
            (Some(reason), _) => format!("ended: {reason}"),
            (None, true) => "streaming".to_owned(),
            (None, false) => "waits for its client".to_owned(),
        };
        let (id, app, mode) = (session.id, &session.app, &session.mode);
        println!("  {id}  \"{app}\" at {mode} for {}, {state}", session.client_name);
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn status(output: &OutputArguments) -> anyhow::Result<ExitCode> {
    let status = Client::find()?.status()?;
    if output.json {
        return print_json(&status);
    }
    print!("{}", super::report::describe(&status));
    Ok(ExitCode::SUCCESS)
}

fn print_trace(trace: &Trace) {
    let source = trace.source;
    match &trace.fate {
        Fate::Sent { index, kind, last_sent_us, bytes, .. } => {
            let latency = last_sent_us.saturating_sub(trace.captured_us);
            let again = if trace.repeated { ", again" } else { "" };
            println!("  {source}  sent as {index} ({kind}{again}), {bytes} bytes, {latency} us");
        }
        Fate::Dropped { reason } => println!("  {source}  dropped before encoding: {reason}"),
    }
}

fn print_json(value: &impl Serialize) -> anyhow::Result<ExitCode> {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(ExitCode::SUCCESS)
}
