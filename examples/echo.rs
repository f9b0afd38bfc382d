//! An echo server on `tokio::net`, whose connections are tasks of polity.
//!
//! `cargo run --example echo`, and from another terminal `nc 127.0.0.1 <port>`; or `-- --seconds 2` to see it end by itself. So that
//! there is something to see, it talks to itself on a few connections first.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use clap::Parser;
use polity::{Attributes, JoinSet};
use polity_policies::Fifo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout_at};

/// A server that sends back what it is sent.
#[derive(Parser)]
#[command(name = "echo")]
struct Args {
    /// Where to listen; port 0 lets the system choose one.
    #[arg(long, default_value = "127.0.0.1:0")]
    address: SocketAddr,

    /// End after so many seconds. Without it the server runs until it is interrupted.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: Option<u64>,

    /// Connections of the built-in client.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    connections: u32,
}

/// How long the built-in client asks, at most.
const CLIENT_RUNS: Duration = Duration::from_secs(1);

// The policy is an exact FIFO; any other may be loaded while the server runs, by `Handle::load`.
#[polity::main(policy = Fifo::new())]
async fn main() -> io::Result<()> {
    let args = Args::parse();
    let until = args
        .seconds
        .map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let listener = TcpListener::bind(args.address).await?;
    let address = listener.local_addr()?;
    println!("listening on {address}");
    let server = polity::spawn(accept(listener));

    let client_until = Instant::now() + CLIENT_RUNS;
    let client_until = until.map_or(client_until, |until| until.min(client_until));
    let mut clients = JoinSet::new();
    for _ in 0..args.connections {
        clients.spawn(ask(address, client_until));
    }
    let mut round_trips = 0;
    while let Some(client) = clients.join_next().await {
        round_trips += client.expect("no client panics")?;
    }
    println!(
        "{} connections made {round_trips} round trips",
        args.connections
    );

    match until {
        Some(until) => tokio::time::sleep_until(until).await,
        // An error of the listener; else for ever.
        None => return server.await.expect("the server does not panic"),
    }
    server.abort();
    let metrics = polity::Handle::current().metrics();
    println!(
        "{} polls, {} of them offered to the policy",
        metrics.polls, metrics.offered
    );
    Ok(())
}

/// A task for each connection. The name is what dumps and reports call it by.
async fn accept(listener: TcpListener) -> io::Result<()> {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let named = Attributes::new().name(format!("echo {peer}"));
                let connection = polity::spawn_with(named, echo(stream));
                // Dropping the handle lets the task run on by itself.
                drop(connection.expect("a name is always allowed"));
            }
            // Too many open files, perhaps: those that are open will close.
            Err(error) => {
                eprintln!("accept: {error}");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn echo(mut stream: TcpStream) {
    let mut buffer = [0; 4096];
    // A connection that breaks is over; nobody else is hurt by it.
    while let Ok(length @ 1..) = stream.read(&mut buffer).await {
        if stream.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

/// Sends and reads back until then; how many round trips that were.
async fn ask(address: SocketAddr, until: Instant) -> io::Result<u64> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut round_trips = 0;
    let message = b"is there anybody?";
    let mut answer = [0; 17];
    while Instant::now() < until {
        stream.write_all(message).await?;
        match timeout_at(
            until + Duration::from_secs(5),
            stream.read_exact(&mut answer),
        )
        .await
        {
            Ok(read) => read?,
            Err(_) => return Err(io::Error::new(io::ErrorKind::TimedOut, "no echo for 5 s")),
        };
        assert_eq!(&answer, message, "an echo is what was sent");
        round_trips += 1;
    }
    Ok(round_trips)
}
