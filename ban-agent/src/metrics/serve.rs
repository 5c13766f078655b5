//! HTTP for whoever scrapes: `GET /metrics`, and nothing else. It knows what to answer, not how
//! the agent is.

use std::{convert::Infallible, future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{ALLOW, CONTENT_TYPE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

/// Scrapers that are connected at once; more wait.
const CONNECTIONS: usize = 16;
/// How long a request's head may take; an idle connection is closed as well.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long an answer may take to be fetched and made.
const ANSWER: Duration = Duration::from_secs(10);
/// Of the text format.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Why the metrics cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("cannot serve metrics on {address}: {source}")]
pub struct ServerError {
    /// Where.
    pub address: SocketAddr,
    /// Why not.
    pub source: io::Error,
}

/// The open port.
#[derive(Debug)]
pub struct Server(TcpListener);

impl Server {
    /// Opens the port.
    ///
    /// # Errors
    /// If it cannot be had.
    pub async fn open(address: SocketAddr) -> Result<Server, ServerError> {
        let listener = TcpListener::bind(address).await;
        listener.map(Server).map_err(|source| ServerError { address, source })
    }

    /// Answers with what `ask` gives, for ever; `None`: 503.
    pub async fn serve<F, A>(self, ask: F)
    where
        F: Fn() -> A + Clone + Send + Sync + 'static,
        A: Future<Output = Option<String>> + Send,
    {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            match self.0.accept().await {
                Ok((stream, _)) => {
                    let ask = ask.clone();
                    tokio::spawn(async move {
                        converse(stream, ask).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    log::warn!("metrics: {error}");
                    // out of descriptors: wait for some to be closed instead of spinning
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

async fn converse<F, A>(stream: TcpStream, ask: F)
where
    F: Fn() -> A + Send + Sync,
    A: Future<Output = Option<String>> + Send,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let asked = ask();
        async move { Ok::<_, Infallible>(answer(&request, asked).await) }
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
) -> Response<String> {
    let plain = |status, text: &str| response(status, CONTENT_TYPE, "text/plain", text.to_owned());
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
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn ask(port: u16, request: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let request = format!("{request}\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn metrics_are_answered_and_nothing_else_is() {
        let server = Server::open("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let port = server.0.local_addr().unwrap().port();
        let taken = Server::open(([127, 0, 0, 1], port).into()).await.unwrap_err();
        assert_eq!(taken.source.kind(), io::ErrorKind::AddrInUse);
        tokio::spawn(server.serve(|| async { Some("a 1\n# EOF\n".to_owned()) }));
        let good = ask(port, "GET /metrics HTTP/1.1").await;
        assert!(good.starts_with("HTTP/1.1 200 OK\r\n"), "{good}");
        assert!(good.contains("content-type: application/openmetrics-text;"), "{good}");
        assert!(good.ends_with("\r\n\r\na 1\n# EOF\n"), "{good}");
        let head = ask(port, "HEAD /metrics HTTP/1.1").await;
        assert!(head.contains("content-length: 10\r\n") && head.ends_with("\r\n\r\n"), "{head}");
        assert!(ask(port, "GET / HTTP/1.1").await.starts_with("HTTP/1.1 404 "));
        assert!(ask(port, "POST /metrics HTTP/1.1").await.starts_with("HTTP/1.1 405 "));
        assert!(ask(port, "\u{1b}[2J").await.starts_with("HTTP/1.1 400 "));
    }

    #[tokio::test]
    async fn an_agent_that_does_not_answer_is_said_so() {
        let server = Server::open("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let port = server.0.local_addr().unwrap().port();
        tokio::spawn(server.serve(|| async { None }));
        assert!(ask(port, "GET /metrics HTTP/1.1").await.starts_with("HTTP/1.1 503 "));
    }
}
