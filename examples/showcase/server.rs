//! The server: hyper's HTTP/1.1 on polity tasks. What matters for scheduling is said where a task is spawned.
//!
//! A connection is one task, heavy, and does little: it reads requests and writes answers. The computing that `/work`
//! asks for is a task of its own, light, which the connection awaits. So a policy can put one before the other,
//! although both may belong to one connection.
//!
//! There are two ports, which differ in the weight of their connections alone: `/ping` is asked for at the first, as
//! health checks often have a port of their own, and `/work` at the second.

use std::convert::Infallible;
use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use polity::{Attributes, JoinHandle, Runtime};
use tokio::net::{TcpListener, TcpStream};

use crate::client::Target;

/// What `/work` computes the checksum of. Long enough for about 3 ms.
const DOCUMENT_BYTES: usize = 3 << 20;
/// After how much of it `/work` yields: about 200 µs. No other task of the worker waits longer for a poll to end.
const PIECE_BYTES: usize = 192 << 10;

/// The weight of the connections of the first port. [`polity_policies::Priority`] makes no difference between the two,
/// but a policy can.
pub(crate) const PING_WEIGHT: u32 = 1_500;
const CONNECTION_WEIGHT: u32 = 1_000;

pub(crate) struct Server {
    addresses: [SocketAddr; 2],
    accepts: [JoinHandle<()>; 2],
    checksum: String,
    work_time: Duration,
}

impl Server {
    /// Listens on two free ports of the loopback interface.
    pub(crate) fn start(runtime: &Runtime) -> Result<Server, Box<dyn Error>> {
        let document: Arc<[u8]> = (0..DOCUMENT_BYTES).map(|i| ((i * i) >> 7) as u8).collect();
        let begun = Instant::now();
        let checksum = body_of(fnv1a(FNV_OFFSET, &document));
        let work_time = begun.elapsed();

        let listen = |weight| -> Result<_, Box<dyn Error>> {
            let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
            let address = listener.local_addr()?;
            let attributes = Attributes::new().name("accept").weight(CONNECTION_WEIGHT);
            let accept = accept(listener, weight, Arc::clone(&document));
            Ok((address, runtime.spawn_with(attributes, accept)?))
        };
        let (ping, work) = (listen(PING_WEIGHT)?, listen(CONNECTION_WEIGHT)?);
        Ok(Server {
            addresses: [ping.0, work.0],
            accepts: [ping.1, work.1],
            checksum,
            work_time,
        })
    }

    /// Of the port for `/ping`, and of that for `/work`.
    pub(crate) fn addresses(&self) -> [SocketAddr; 2] {
        self.addresses
    }

    /// How long one `/work` takes when nothing else runs.
    pub(crate) fn work_time(&self) -> Duration {
        self.work_time
    }

    /// What may be asked here, and the right answers.
    pub(crate) fn targets(&self) -> [Target; 2] {
        let [ping, work] = self.addresses;
        [
            Target::new(ping, "/ping", "pong"),
            Target::new(work, "/work", &self.checksum),
        ]
    }

    /// Takes no more connections. Those that there are end when their clients close them.
    pub(crate) fn stop(&self) {
        for accept in &self.accepts {
            accept.abort();
        }
    }
}

async fn accept(listener: TcpListener, weight: u32, document: Arc<[u8]>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => serve(stream, weight, Arc::clone(&document)),
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                // "Too many open files" does not go away by asking again at once.
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

fn serve(stream: TcpStream, weight: u32, document: Arc<[u8]>) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::warn!(%error, "set_nodelay failed");
    }
    let service = service_fn(move |request| answer(request, Arc::clone(&document)));
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let attributes = Attributes::new().name("http").weight(weight);
    let spawned = polity::spawn_with(attributes, async move {
        if let Err(error) = connection.await {
            tracing::warn!(%error, "connection failed");
        }
    });
    if let Err(error) = spawned {
        tracing::warn!(%error, "connection not served");
    }
}

async fn answer(
    request: Request<Incoming>,
    document: Arc<[u8]>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (status, body) = match request.uri().path() {
        "/ping" => (StatusCode::OK, "pong".into()),
        "/work" => match work(document).await {
            Ok(body) => (StatusCode::OK, body),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        },
        _ => (StatusCode::NOT_FOUND, String::new()),
    };
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    Ok(response)
}

async fn work(document: Arc<[u8]>) -> Result<String, Box<dyn Error + Send + Sync>> {
    let attributes = Attributes::new().name("work").weight(10);
    let hash = polity::spawn_with(attributes, checksum(document))?.await?;
    Ok(body_of(hash))
}

async fn checksum(document: Arc<[u8]>) -> u64 {
    let mut hash = FNV_OFFSET;
    for piece in document.chunks(PIECE_BYTES) {
        hash = fnv1a(hash, piece);
        polity::yield_now().await;
    }
    hash
}

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a: each byte waits for the one before, so neither vector units nor fast memory shorten it much.
fn fnv1a(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

fn body_of(hash: u64) -> String {
    format!("{hash:016x}")
}
