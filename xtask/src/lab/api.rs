//! A stand-in for CloudStack's API: one account, and the statuses that the real one gives. It
//! runs behind nginx inside the lab, as a process of its own (`cargo xtask lab-api PORT`).

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};

/// The one password that is right, and the one key whose signature is.
pub(super) const PASSWORD: &str = "correct";

/// Answers for ever.
pub(crate) fn serve(port: u16) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .with_context(|| format!("cannot listen on 127.0.0.1:{port}"))?;
    for stream in listener.incoming() {
        let stream = stream.context("cannot accept")?;
        thread::spawn(move || {
            if let Err(error) = answer(stream) {
                eprintln!("lab-api: {error:#}");
            }
        });
    }
    Ok(())
}

fn answer(mut stream: TcpStream) -> Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut header = String::new();
    while reader.read_line(&mut header)? > 2 {
        header.clear();
    }
    let (status, body) = reply(&request);
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )?;
    Ok(())
}

/// A login with a wrong password is 531, a request with a wrong signature 401.
fn reply(request: &str) -> (&'static str, &'static str) {
    let has = |field: &str| request.split(['?', '&', ' ']).any(|part| part == field);
    let right = has(&format!("password={PASSWORD}"));
    match (has("command=login"), right) {
        (true, true) => ("200 OK", r#"{"loginresponse":{"username":"client"}}"#),
        (true, false) => (
            "531 Authentication Failed",
            r#"{"loginresponse":{"errorcode":531,"errortext":"Failed to authenticate user"}}"#,
        ),
        (false, _) => (
            "401 Unauthorized",
            r#"{"errorresponse":{"errorcode":401,"errortext":"unable to verify user credentials"}}"#,
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_follow_the_credentials() {
        let status = |query: &str| reply(&format!("GET /client/api?{query} HTTP/1.0\r\n")).0;
        assert!(status("command=login&username=a&password=correct").starts_with("200"));
        assert!(status("command=login&username=a&password=wrong").starts_with("531"));
        assert!(status("command=login&username=password=correct&password=x").starts_with("531"));
        assert!(status("command=listUsers&apiKey=k&signature=s").starts_with("401"));
    }
}
