//! HTTP for those who scrape, over a port or a unix socket: `GET /metrics`, and nothing else. It
//! knows what to answer, not how the agent is.

use std::{
    collections::VecDeque,
    convert::Infallible,
    fmt,
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{ALLOW, CONTENT_TYPE, HOST},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener, UnixStream},
    task::JoinHandle,
    time::Instant,
};

/// Scrapers that are connected at once; one more takes the place of the oldest.
const CONNECTIONS: usize = 16;
/// For so long a client keeps its place: a scrape takes less.
const OWN: Duration = Duration::from_millis(100);
/// How long a connection may last in all; a scraper that keeps its own opens another then.
const LIFETIME: Duration = Duration::from_secs(300);
/// How long a request's head may take; an idle connection is closed as well.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long an answer may take to be fetched and made.
const ANSWER: Duration = Duration::from_secs(10);
/// Of the text format.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Where the metrics are served: `127.0.0.1:9938`, or `unix:/run/ban-agent/metrics.sock`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(try_from = "String")]
pub enum Listen {
    /// A port.
    Tcp(SocketAddr),
    /// A socket in the file system.
    Unix(PathBuf),
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Listen, String> {
        match text.strip_prefix("unix:") {
            Some(path) if path.starts_with('/') => Ok(Listen::Unix(path.into())),
            Some(path) => Err(format!("'{path}' is not an absolute path")),
            None => text
                .parse()
                .map(Listen::Tcp)
                .map_err(|_| format!("'{text}' is neither ADDRESS:PORT nor unix:/PATH")),
        }
    }
}

impl TryFrom<String> for Listen {
    type Error = String;

    fn try_from(text: String) -> Result<Listen, String> {
        text.parse()
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Tcp(address) => address.fmt(f),
            Listen::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Why the metrics cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("cannot serve metrics on {address}: {source}")]
pub struct ServerError {
    /// Where.
    pub address: Listen,
    /// Why not.
    pub source: io::Error,
}

#[derive(Debug)]
enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

/// The open port, or socket.
#[derive(Debug)]
pub struct Server(Listener);

impl Server {
    /// Opens the port, or makes the socket: for root and `group`.
    ///
    /// # Errors
    /// If it cannot be had.
    pub async fn open(address: Listen, group: Option<u32>) -> Result<Server, ServerError> {
        let opened = match &address {
            Listen::Tcp(address) => TcpListener::bind(address).await.map(Listener::Tcp),
            Listen::Unix(path) => {
                socket(path, group).await.map(|listener| Listener::Unix(listener, path.clone()))
            }
        };
        opened.map(Server).map_err(|source| ServerError { address, source })
    }

    /// Answers with what `ask` gives, for ever; `None`: 503.
    pub async fn serve<F, A>(self, ask: F)
    where
        F: Fn() -> A + Clone + Send + Sync + 'static,
        A: Future<Output = Option<String>> + Send,
    {
        let mut places = Places::default();
        // over a port that only this host reaches, a page in a user's browser may ask as well
        let by_name = match &self.0 {
            Listener::Tcp(listener) => {
                !listener.local_addr().is_ok_and(|address| address.ip().is_loopback())
            }
            Listener::Unix(..) => true,
        };
        let mut failing = false;
        loop {
            places.make_room().await;
            let ask = ask.clone();
            let accepted = match &self.0 {
                Listener::Tcp(listener) => {
                    listener.accept().await.map(|(stream, _)| begin(stream, ask, by_name))
                }
                Listener::Unix(listener, _) => {
                    listener.accept().await.map(|(stream, _)| begin(stream, ask, by_name))
                }
            };
            match accepted {
                Ok(connection) => {
                    failing = false;
                    places.0.push_back((Instant::now(), connection));
                }
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        log::warn!("metrics: {error}");
                    }
                    // out of descriptors: wait for some to be closed instead of spinning
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

/// Who is connected, the oldest first.
#[derive(Debug, Default)]
struct Places(VecDeque<(Instant, JoinHandle<()>)>);

impl Places {
    /// Ends the oldest connection, if there is no place left: who neither reads nor leaves silences
    /// nobody.
    async fn make_room(&mut self) {
        self.0.retain(|(_, connection)| !connection.is_finished());
        while self.0.len() >= CONNECTIONS
            && let Some((begun, mut connection)) = self.0.pop_front()
        {
            if tokio::time::timeout_at(begun + OWN, &mut connection).await.is_err() {
                connection.abort();
            }
        }
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        for (_, connection) in &self.0 {
            connection.abort();
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Listener::Unix(_, path) = self
            && let Err(error) = std::fs::remove_file(&*path)
        {
            log::debug!("cannot remove {}: {error}", path.display());
        }
    }
}

/// Takes the place of a socket without a listener.
async fn socket(path: &Path, group: Option<u32>) -> io::Result<UnixListener> {
    if UnixStream::connect(path).await.is_ok() {
        return Err(io::ErrorKind::AddrInUse.into());
    }
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    match std::fs::symlink_metadata(path) {
        Ok(there) if there.file_type().is_socket() => std::fs::remove_file(path)?,
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    crate::socket::give(path, group);
    Ok(listener)
}

fn begin<S, F, A>(stream: S, ask: F, by_name: bool) -> JoinHandle<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn() -> A + Send + Sync + 'static,
    A: Future<Output = Option<String>> + Send,
{
    tokio::spawn(async move {
        if tokio::time::timeout(LIFETIME, converse(stream, ask, by_name)).await.is_err() {
            log::debug!("metrics: a connection has lasted for {LIFETIME:?}: closed");
        }
    })
}

async fn converse<S, F, A>(stream: S, ask: F, by_name: bool)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    F: Fn() -> A + Send + Sync,
    A: Future<Output = Option<String>> + Send,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let asked = ask();
        async move { Ok::<_, Infallible>(answer(&request, asked, by_name).await) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(PATIENCE).max_buf_size(16 << 10);
    if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
        log::debug!("metrics: {error}");
    }
}

async fn answer(
    request: &Request<Incoming>,
    asked: impl Future<Output = Option<String>>,
    by_name: bool,
) -> Response<String> {
    let plain = |status, text: &str| response(status, CONTENT_TYPE, "text/plain", text.to_owned());
    if !by_name && !is_local(request) {
        let text = "ask by address, or for localhost: no other name leads here\n";
        return plain(StatusCode::MISDIRECTED_REQUEST, text);
    }
    if request.uri().path() != "/metrics" {
        return plain(StatusCode::NOT_FOUND, "metrics are at /metrics\n");
    }
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        return response(StatusCode::METHOD_NOT_ALLOWED, ALLOW, "GET, HEAD", String::new());
    }
    match tokio::time::timeout(ANSWER, asked).await {
        Ok(Some(text)) => response(StatusCode::OK, CONTENT_TYPE, OPENMETRICS, text),
        _ => plain(StatusCode::SERVICE_UNAVAILABLE, "the agent is busy, or stopping\n"),
    }
}

/// Returns whether the request names this host by an address, or as localhost. A page that a
/// browser has from elsewhere can make a name of its own lead here, and would read the answer ("DNS
/// rebinding"); it cannot make the browser send another name than its own.
fn is_local(request: &Request<Incoming>) -> bool {
    let Some(host) = request.headers().get(HOST) else {
        // every browser names one
        return true;
    };
    let host = host.to_str().unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, port)| {
        if port.bytes().all(|byte| byte.is_ascii_digit()) { name } else { host }
    });
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
}

fn response(
    status: StatusCode,
    name: hyper::header::HeaderName,
    value: &'static str,
    body: String,
) -> Response<String> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(name, hyper::header::HeaderValue::from_static(value));
    response
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpStream,
    };

    use super::*;

    async fn ask(port: u16, request: &str) -> String {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        ask_over(stream, request).await
    }

    async fn ask_over(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> String {
        let request = format!("{request}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn local() -> (Server, u16) {
        let server = Server::open("127.0.0.1:0".parse().unwrap(), None).await.unwrap();
        let Listener::Tcp(listener) = &server.0 else { panic!("not a port") };
        let port = listener.local_addr().unwrap().port();
        (server, port)
    }

    #[tokio::test]
    async fn metrics_are_answered_and_nothing_else_is() {
        let (server, port) = local().await;
        let taken = format!("127.0.0.1:{port}").parse().unwrap();
        let taken = Server::open(taken, None).await.unwrap_err();
        assert_eq!(taken.source.kind(), io::ErrorKind::AddrInUse);
        tokio::spawn(server.serve(|| async { Some("a 1\n# EOF\n".to_owned()) }));
        let good = ask(port, "GET /metrics HTTP/1.1\r\nHost: localhost:9938").await;
        assert!(good.starts_with("HTTP/1.1 200 OK\r\n"), "{good}");
        assert!(good.contains("content-type: application/openmetrics-text;"), "{good}");
        assert!(good.ends_with("\r\n\r\na 1\n# EOF\n"), "{good}");
        let head = ask(port, "HEAD /metrics HTTP/1.1\r\nHost: localhost:9938").await;
        assert!(head.contains("content-length: 10\r\n") && head.ends_with("\r\n\r\n"), "{head}");
        assert!(
            ask(port, "GET / HTTP/1.1\r\nHost: localhost:9938").await.starts_with("HTTP/1.1 404 ")
        );
        assert!(
            ask(port, "POST /metrics HTTP/1.1\r\nHost: localhost:9938")
                .await
                .starts_with("HTTP/1.1 405 ")
        );
        assert!(ask(port, "\u{1b}[2J").await.starts_with("HTTP/1.1 400 "));
    }

    #[tokio::test]
    async fn a_name_that_anybody_can_make_lead_here_is_not_answered() {
        let (server, port) = local().await;
        tokio::spawn(server.serve(|| async { Some("a 1\n# EOF\n".to_owned()) }));
        for (host, expected) in [
            ("localhost", "200"),
            ("LOCALHOST:9938", "200"),
            ("127.0.0.1:9938", "200"),
            ("192.0.2.1", "200"),
            ("[::1]:9938", "200"),
            ("[::1]", "200"),
            ("rebound.example:9938", "421"),
            ("127.0.0.1.example", "421"),
            ("localhost.example", "421"),
            ("", "421"),
        ] {
            let answer = ask(port, &format!("GET /metrics HTTP/1.1\r\nHost: {host}")).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {expected} ")), "{host}: {answer}");
        }
        assert!(ask(port, "GET /metrics HTTP/1.0").await.starts_with("HTTP/1.0 200 "));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_does_not_read_silences_nobody() {
        let (server, port) = local().await;
        let page = format!("{}\n# EOF\n", "a 1\n".repeat(50_000));
        tokio::spawn(server.serve(move || {
            let page = page.clone();
            async { Some(page) }
        }));
        let mut deaf = Vec::new();
        for _ in 0..3 * CONNECTIONS {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            let requests = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(100);
            // it may be closed already
            let _ = stream.write_all(requests.as_bytes()).await;
            deaf.push(stream);
        }
        for _ in 0..3 {
            let asked = ask(port, "GET /metrics HTTP/1.1\r\nHost: localhost");
            let answer = tokio::time::timeout(crate::patience::patience(), asked).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        }
    }

    #[tokio::test]
    async fn an_agent_that_does_not_answer_is_said_so() {
        let (server, port) = local().await;
        tokio::spawn(server.serve(|| async { None }));
        assert!(
            ask(port, "GET /metrics HTTP/1.1\r\nHost: localhost:9938")
                .await
                .starts_with("HTTP/1.1 503 ")
        );
    }

    #[tokio::test]
    async fn a_socket_that_nobody_serves_is_taken_over_and_nothing_else_is() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("metrics.sock");
        let listen = Listen::Unix(path.clone());
        // as a crash leaves it
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let server = Server::open(listen.clone(), None).await.unwrap();
        let taken = Server::open(listen.clone(), None).await.unwrap_err();
        assert_eq!(taken.source.kind(), io::ErrorKind::AddrInUse);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        let serving = tokio::spawn(server.serve(|| async { Some("a 1\n# EOF\n".to_owned()) }));
        let stream = UnixStream::connect(&path).await.unwrap();
        let good = ask_over(stream, "GET /metrics HTTP/1.1\r\nHost: localhost:9938").await;
        assert!(good.starts_with("HTTP/1.1 200 OK\r\n"), "{good}");
        serving.abort();
        assert!(serving.await.unwrap_err().is_cancelled());
        assert!(!path.exists(), "left behind");
        std::fs::write(&path, "dear").unwrap();
        assert!(Server::open(listen, None).await.is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"dear");
    }

    #[test]
    fn where_to_listen_is_a_port_or_a_path() {
        for text in ["127.0.0.1:9938", "[::1]:9938", "unix:/run/ban-agent/metrics.sock"] {
            assert_eq!(text.parse::<Listen>().unwrap().to_string(), text);
        }
        for text in ["localhost", "unix:metrics.sock", "/run/metrics.sock"] {
            assert!(text.parse::<Listen>().is_err(), "{text}");
        }
    }
}
