//! `punktfunk-launcher serve OPTION..`, `clear OPTION..`, and `sweep`, which it calls itself.

use std::process::ExitCode;

use punktfunk_launcher::{Error, Options, clear, serve, sweep};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let done = match words.split_first() {
        Some((verb, rest)) if verb == "serve" => Options::parse(rest).and_then(serve),
        Some((verb, rest)) if verb == "clear" => Options::parse(rest).and_then(|o| clear(&o)),
        Some((verb, rest)) if verb == "sweep" => sweep(rest),
        _ => Err(Error::Refused("the first word is to be serve or clear".to_owned())),
    };
    if let Err(error) = done {
        eprintln!("punktfunk-launcher: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
