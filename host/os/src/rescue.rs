//! A page that answers when the console does not: what runs, what was found, and what to do at the machine.
//!
//! It runs as nobody, reads the status that everybody may read, and answers every request with the same page. One
//! connection at a time, for a few seconds at most: whoever is slow is cut off, and the next one has its turn.
//!
//! Deliberately absent: any way to do something. Logs, too; they may say more than a stranger on the network should see.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::status::{Check, Outcome, Status};

/// No request is read further, in bytes.
const MAX_REQUEST_BYTES: usize = 8192;

/// So long a connection has.
const LIMIT: Duration = Duration::from_secs(3);

/// Answers for ever.
pub fn serve(port: u16, status: &Path) -> io::Result<()> {
    let both = TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)));
    let listener = match both {
        Ok(listener) => listener,
        // A machine without IPv6.
        Err(_) => TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))?,
    };
    loop {
        let (stream, _) = listener.accept()?;
        // A visitor that goes away is no concern of the next one.
        let _ = answer(&stream, status);
    }
}

fn answer(mut stream: &TcpStream, status: &Path) -> io::Result<()> {
    let began = Instant::now();
    stream.set_write_timeout(Some(LIMIT))?;
    let mut request = Vec::new();
    let mut piece = [0; 1024];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        let left = LIMIT.saturating_sub(began.elapsed());
        if left.is_zero() || request.len() > MAX_REQUEST_BYTES {
            return Ok(());
        }
        stream.set_read_timeout(Some(left))?;
        let count = stream.read(&mut piece)?;
        if count == 0 {
            return Ok(());
        }
        request.extend_from_slice(&piece[..count]);
    }
    stream.write_all(&response(&request, Status::read(status).ok().as_ref()))
}

/// The answer to a request.
fn response(request: &[u8], status: Option<&Status>) -> Vec<u8> {
    let page = page(status);
    let (line, body) = if request.starts_with(b"GET ") {
        ("503 Service Unavailable", page.as_str())
    } else if request.starts_with(b"HEAD ") {
        ("503 Service Unavailable", "")
    } else {
        ("405 Method Not Allowed", "")
    };
    let head = format!(
        "HTTP/1.1 {line}\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\n\
         Cache-Control: no-store\r\nRetry-After: 60\r\nConnection: close\r\n\
         Content-Security-Policy: default-src 'none'\r\nX-Content-Type-Options: nosniff\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body.as_bytes()].concat()
}

/// The page, from what is known.
fn page(status: Option<&Status>) -> String {
    let mut body = String::from("<h1>This box runs, and its console does not answer.</h1>\n");
    match status {
        None => body.push_str("<p>What was found is not known.</p>\n"),
        Some(status) => {
            if let Some(booted) = status.booted() {
                let (version, commit) = (escape(&booted.version), escape(&booted.commit));
                body.push_str(&format!("<p>It runs version {version} ({commit:.12}).</p>\n"));
            }
            if let Some(Outcome::Failed { reason, checks, .. }) = &status.verdict {
                body.push_str(&format!("<p>{}</p>\n<ul>\n", escape(reason)));
                for Check { name, passed, detail } in checks {
                    let mark = if *passed { "good" } else { "failed" };
                    let (name, detail) = (escape(name), escape(detail));
                    body.push_str(&format!("<li>{name}: {mark}, {detail}</li>\n"));
                }
                body.push_str("</ul>\n");
            }
        }
    }
    body.push_str(
        "<p>At the machine: press the power button once and wait until it is off, then switch it on again. If this page \
         comes back, hold the space bar while it starts, and choose another version.</p>\n",
    );
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>punktfunk</title></head>\n\
         <body>\n{body}</body></html>\n"
    )
}

/// A text that is nothing but text.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> Status {
        let checks = [("daemon", true, "it runs"), ("console", false, "<script>")];
        let checks = checks.map(|(name, passed, detail)| Check {
            name: name.to_owned(),
            passed,
            detail: detail.to_owned(),
        });
        serde_json::from_value(serde_json::json!({
            "schema": 1, "boot_id": "b",
            "deployments": [{"commit": "c".repeat(64), "version": "0.1.0", "made_at": 0,
                             "role": "booted", "pinned": false}],
            "verdict": Outcome::Failed {
                reason: "console: <b>".to_owned(), checks: checks.to_vec(), log: vec!["secret".to_owned()],
            },
        }))
        .unwrap()
    }

    #[test]
    fn the_page_says_what_was_found_and_no_log() {
        let page = page(Some(&status()));
        for part in ["version 0.1.0 (cccccccccccc)", "console: &lt;b&gt;", "failed, &lt;script&gt;"]
        {
            assert!(page.contains(part), "{part}: {page}");
        }
        assert!(!page.contains("<script") && !page.contains("secret"), "{page}");
        assert!(super::page(None).contains("not known"));
    }

    #[test]
    fn only_reading_is_answered() {
        let text = |request: &[u8]| String::from_utf8(response(request, None)).unwrap();
        assert!(text(b"GET / HTTP/1.1\r\n\r\n").contains("<h1>"));
        assert!(text(b"HEAD / HTTP/1.1\r\n\r\n").ends_with("\r\n\r\n"));
        assert!(text(b"POST / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405 "));
    }

    #[test]
    fn a_visitor_gets_it_over_the_network() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let visitor = std::thread::spawn(move || {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(b"GET /any HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            text
        });
        let (stream, _) = listener.accept().unwrap();
        answer(&stream, Path::new("/nowhere/status.json")).unwrap();
        drop(stream);
        let text = visitor.join().unwrap();
        assert!(text.starts_with("HTTP/1.1 503 ") && text.contains("not known"), "{text}");
    }
}
