//! The program of `before.rs` under polity: another macro, other spawns. What is left of tokio is its sockets and timers, which
//! work unchanged. The README shows the difference.
//!
//! `cargo run --example from_tokio`. From here, a policy is one option away: `#[polity::main(policy = Priority::new())]`.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

#[polity::main]
async fn main() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let server = polity::spawn(accept(listener));

    let mut clients = polity::task::JoinSet::new();
    for name in ["ada", "grace", "barbara"] {
        clients.spawn(async move {
            let stream = TcpStream::connect(address).await?;
            ask(stream, name).await
        });
    }
    while let Some(client) = clients.join_next().await {
        println!("{}", client.expect("no client panics")?);
    }
    server.abort();
    Ok(())
}

/// A task for each connection.
async fn accept(listener: TcpListener) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        polity::spawn(serve(stream));
    }
}

async fn serve(stream: TcpStream) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    while stream.read_line(&mut line).await? > 0 {
        stream.write_all(line.to_uppercase().as_bytes()).await?;
        line.clear();
    }
    Ok(())
}

async fn ask(stream: TcpStream, name: &str) -> io::Result<String> {
    let mut stream = BufReader::new(stream);
    stream
        .write_all(format!("hello, {name}\n").as_bytes())
        .await?;
    let mut answer = String::new();
    timeout(Duration::from_secs(5), stream.read_line(&mut answer)).await??;
    Ok(answer.trim_end().to_owned())
}
