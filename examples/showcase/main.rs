//! A web server under load, while its scheduling policy is loaded, swapped, breaks, and is thrown out by a person.
//!
//! `cargo run --release --example showcase` (20 seconds), `-- --help` for more.
//!
//! The server (`server.rs`) is hyper on two polity workers. `/ping` answers at once; `/work` computes for about 3 ms,
//! in pieces of about 200 µs. The clients (`client.rs`) are plain threads with real TCP connections, outside the
//! runtime: 64 of them ask for `/work` without a pause, so the workers never have an idle moment, and 200 times a
//! second somebody asks for `/ping`. The phases (`phases.rs`) differ in nothing but the policy. What to look at
//! (`table.rs`): how long the slowest percent of the `/ping`s took, and that no phase has an error.
//!
//! A panic message in the third phase is part of the play. The `work/s` say what the policies cost; but it is not a
//! benchmark, since clients and server share the machine's cores, and on a busy machine the kernel adds milliseconds.

// The seams that this lint guards are the runtime's. A load generator lives by the clock.
#![allow(clippy::disallowed_methods)]

mod client;
mod phases;
mod record;
mod server;
mod table;

use std::error::Error;
use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;

use client::Clients;
use record::Record;
use server::Server;

/// A web server under load, while its scheduling policy is loaded, swapped, breaks, and is thrown out.
#[derive(Parser)]
#[command(name = "showcase")]
struct Args {
    /// Length of the whole run, warm-up included.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(5..=3600))]
    seconds: u64,

    /// `/ping` requests per second, sent on a schedule whether or not the earlier ones were answered.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    ping_rate: u32,

    /// Connections that ask for `/work`, each as soon as its last answer is there.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    work_connections: u32,

    /// Workers of the server.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    workers: u16,

    /// Print the figures once more as one line of JSON, the last line on stdout.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(errors) => {
            eprintln!("{errors} requests failed");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("showcase: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Returns how many requests failed.
fn run(args: &Args) -> Result<u64, Box<dyn Error>> {
    // polity reports loads and ejections as tracing events. Stderr, because stdout is for the figures.
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_target(false)
        .with_ansi(io::stderr().is_terminal())
        .init();

    let runtime = polity::Builder::new()
        .worker_threads(args.workers.into())
        .thread_name("showcase")
        .build()?;
    let server = Server::start(&runtime)?;
    let record = Arc::new(Record::new());
    let load = client::Load {
        ping_rate: args.ping_rate,
        work_connections: args.work_connections,
    };
    let clients = Clients::start(server.targets(), &load, &record)?;

    let pid = std::process::id();
    println!("pid {pid}: `kill -QUIT {pid}` from another terminal ejects the policy, at any time");
    println!(
        "http://{}: {} /ping per second, {} connections of /work ({:.1} ms of CPU each)",
        server.address(),
        args.ping_rate,
        args.work_connections,
        server.work_time().as_secs_f64() * 1e3,
    );

    let whole = Duration::from_secs(args.seconds);
    let warm_up = whole / 20;
    println!("warm-up, {:.1} s", warm_up.as_secs_f64());
    std::thread::sleep(warm_up);

    let endings = phases::play(&runtime, &record, (whole - warm_up) / phases::COUNT)?;
    clients.stop();
    server.stop();

    let tallies = record.tallies();
    let rows = table::rows(&endings, &tallies);
    table::print(&rows);
    runtime.shutdown_timeout(Duration::from_secs(5));
    if args.json {
        println!("{}", table::json(&rows)?);
    }
    Ok(tallies.iter().map(|tally| tally.errors).sum())
}
