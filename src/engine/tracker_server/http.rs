//! The tracker's window over HTTP: `/announce`, `/scrape` (BEP 48), and `/` for people.
//!
//! Every connection is bounded: in number, in the size of a request's head, and in the time for it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::Desk;
use crate::proto::announce::{answer, query};
use crate::proto::registry::{Families, Visit};

/// Connections at once; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 4096;

/// For a request's head, and for the pause between two on one connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Of a connection. One that asks without reading the answers would stay for ever.
const LIFE: Duration = Duration::from_secs(300);

/// Bytes of a request's head: the smallest buffer that hyper takes.
const MAX_HEAD: usize = 8 * 1024;

const MAX_HEADERS: usize = 64;

/// After an accept that failed, mostly for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

pub(super) async fn serve(listener: TcpListener, desk: Arc<Desk>) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    // Dropped with this task, and all connections with it.
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, from)) => {
                let desk = Arc::clone(&desk);
                connections.spawn(async move {
                    converse(stream, from, desk).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn converse(stream: TcpStream, from: SocketAddr, desk: Arc<Desk>) {
    // Only costs latency when it fails.
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request| {
        let response = respond(&request, from, &desk);
        async { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    if timeout(LIFE, connection.as_mut()).await.is_ok() {
        return;
    }
    connection.as_mut().graceful_shutdown();
    let _ = timeout(HEAD_TIMEOUT, connection).await;
}

fn respond(request: &Request<Incoming>, from: SocketAddr, desk: &Desk) -> Response<Full<Bytes>> {
    if request.method() != Method::GET {
        return page(StatusCode::METHOD_NOT_ALLOWED, "only GET is served here\n");
    }
    let query = request.uri().query().unwrap_or_default().as_bytes();
    match request.uri().path() {
        "/announce" => bencoded(announce(query, from, desk)),
        "/scrape" => bencoded(scrape(query, desk)),
        "/" => status(desk),
        _ => page(StatusCode::NOT_FOUND, "trackers answer at /announce and /scrape\n"),
    }
}

fn announce(query: &[u8], from: SocketAddr, desk: &Desk) -> Vec<u8> {
    let announce = match query::read(query) {
        Ok(announce) => announce,
        Err(error) => return answer::write_refusal(&error.to_string()),
    };
    let visit = Visit {
        info_hash: announce.info_hash,
        addr: SocketAddr::new(from.ip(), announce.port),
        left: announce.progress.left,
        event: announce.event,
        wanted: announce.wanted,
        families: Families::Both,
    };
    match desk.announce(&visit) {
        Ok(mut reply) => {
            reply.external_ip = Some(from.ip().to_canonical());
            answer::write(&reply)
        }
        Err(refused) => answer::write_refusal(&refused.to_string()),
    }
}

fn scrape(query: &[u8], desk: &Desk) -> Vec<u8> {
    match query::read_scrape(query) {
        Ok(torrents) if torrents.is_empty() => answer::write_refusal("info_hash is missing"),
        Ok(torrents) => {
            let numbers = desk.scrape(&torrents);
            let all: Vec<_> = torrents.into_iter().zip(numbers).collect();
            answer::write_scrape(&all)
        }
        Err(error) => answer::write_refusal(&error.to_string()),
    }
}

fn status(desk: &Desk) -> Response<Full<Bytes>> {
    let summary = desk.summary();
    let text = format!(
        "btfs tracker\ntorrents {}\npeers {}\nannounces {}\n",
        summary.torrents, summary.peers, summary.announces
    );
    page(StatusCode::OK, text)
}

fn bencoded(body: Vec<u8>) -> Response<Full<Bytes>> {
    page(StatusCode::OK, body)
}

fn page(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}
