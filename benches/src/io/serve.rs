//! The servers: tokio's sockets, and a task for each connection.

use std::convert::Infallible;
use std::net::Ipv4Addr;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Response;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::Peer;
use crate::child::{answer, until_dismissed};
use crate::side::{Contender, Scenario};

/// The body of every answer of [`Service::Http`].
pub(super) const PLAINTEXT: &str = "Hello, World!";

/// What is served.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(crate) enum Service {
    /// Sends back what it is sent.
    Echo,
    /// hyper, HTTP/1.1 with keep-alive, a short text.
    Http,
}

/// A server on a free port of the loopback interface, until it is dismissed.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Serve(pub(crate) Service);

impl Scenario for Serve {
    type Outcome = ();

    fn run<P: Contender>(self, on: P) {
        let listener = on.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
        let listener = listener.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let accepting = on.spawn_from_outside(accept::<P>(listener, self.0));
        answer(&address);
        until_dismissed();
        P::detach(accepting);
    }
}

async fn accept<P: Peer>(listener: TcpListener, service: Service) {
    loop {
        let (stream, _) = listener.accept().await.expect("files enough");
        stream.set_nodelay(true).expect("a TCP socket");
        match service {
            Service::Echo => P::detach(P::spawn(echo(stream))),
            Service::Http => P::detach(P::spawn(http(stream))),
        }
    }
}

/// Until the client goes.
async fn echo(mut stream: TcpStream) {
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = stream.read(&mut buffer).await {
        if stream.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

async fn http(stream: TcpStream) {
    // Not `async |_|`: with that, rustc 1.95 has a bug in incremental builds ("evaluate_obligation").
    let service = service_fn(|_| async {
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(
            PLAINTEXT.as_bytes(),
        ))))
    });
    // The load hangs up without a word.
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}
