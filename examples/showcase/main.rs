//! A web server under load, while its scheduling policy is loaded, swapped, breaks, starves a part of the requests,
//! hangs, and is thrown out by a person.
//!
//! `cargo run --release --example showcase` (some 20 seconds), `-- --help` for more.
//!
//! The server (`server.rs`) is hyper on two polity workers. `/ping` answers at once; `/work` computes for about 3 ms,
//! in pieces of about 200 µs. The clients (`client.rs`) are plain threads with real TCP connections, outside the
//! runtime: 64 of them ask for `/work` without a pause, so the workers never have an idle moment, and 200 times a
//! second somebody asks for `/ping`. The phases (`phases.rs`, played by `play.rs`) differ in nothing but the policy. What
//! to look at (`table.rs`, `plot.rs`): how long the slowest percent of the `/ping`s took, how soon the runtime was rid of
//! a policy that does harm, and that no phase has an error. Slow is allowed, lost is not: the program fails if a request
//! did, or if a policy did not end by what the phase was made to show.
//!
//! A panic message in the third phase is part of the play. The `work/s` say what the policies cost; but it is not a
//! benchmark, since clients and server share the machine's cores, and on a busy machine the kernel adds milliseconds.

// The seams that this lint guards are the runtime's. A load generator lives by the clock.
#![allow(clippy::disallowed_methods)]

mod client;
mod phases;
mod play;
mod plot;
mod record;
mod server;
mod table;
mod timeline;

use std::error::Error;
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;

use client::Clients;
use phases::Phase;
use record::Record;
use server::Server;

/// The stall timeout of the runtime: short enough to see, long enough for a machine that is busy otherwise.
const STALL_TIMEOUT: Duration = Duration::from_millis(500);

/// A web server under load, while its scheduling policy is loaded, swapped, breaks, starves, hangs, and is thrown out.
#[derive(Parser)]
#[command(name = "showcase")]
struct Args {
    /// Length of the whole run, warm-up included. Phases that wait for an ejection may take a little longer.
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

    /// Where to draw the latency of `/ping` over time, as SVG.
    #[arg(long, value_name = "PATH", default_value = "target/showcase.svg")]
    plot: PathBuf,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(Failures {
            requests: 0,
            phases: 0,
        }) => ExitCode::SUCCESS,
        Ok(Failures { requests, phases }) => {
            eprintln!("{requests} requests failed, {phases} phases did not go as expected");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("showcase: {error}");
            ExitCode::FAILURE
        }
    }
}

/// How many requests failed, and in how many phases the policy ended in another way than the phase was made to show, or
/// nobody was served.
struct Failures {
    requests: u64,
    phases: usize,
}

fn run(args: &Args) -> Result<Failures, Box<dyn Error>> {
    // polity reports loads and ejections as tracing events. Stderr, because stdout is for the figures.
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_target(false)
        .with_ansi(io::stderr().is_terminal())
        .init();

    let runtime = polity::Builder::new()
        .worker_threads(args.workers.into())
        .thread_name("showcase")
        .watchdog(STALL_TIMEOUT)
        .build()?;
    let server = Server::start(&runtime)?;
    let whole = Duration::from_secs(args.seconds);
    let record = Arc::new(Record::new(whole));
    let load = client::Load {
        ping_rate: args.ping_rate,
        work_connections: args.work_connections,
    };
    let clients = Clients::start(server.targets(), &load, &record)?;

    let pid = std::process::id();
    println!("pid {pid}: `kill -QUIT {pid}` from another terminal ejects the policy, at any time");
    let [ping, work] = server.addresses();
    println!(
        "http://{ping}/ping {} times per second, http://{work}/work on {} connections ({:.1} ms of CPU each)",
        args.ping_rate,
        args.work_connections,
        server.work_time().as_secs_f64() * 1e3,
    );

    let warm_up = whole / 20;
    println!("warm-up, {:.1} s", warm_up.as_secs_f64());
    std::thread::sleep(warm_up);

    let phases = Phase::ALL.len() as u32;
    let outcomes = play::play(&runtime, &record, (whole - warm_up) / phases)?;
    clients.stop();
    server.stop();

    let seen = record.seen();
    let rows = table::rows(&outcomes, &seen.tallies);
    table::print(&rows);
    let plot = args.plot.display();
    match plot::draw(&args.plot, &outcomes, &seen) {
        Ok(()) => println!("plot: {plot}"),
        Err(error) => eprintln!("no plot: {plot}: {error}"), // the figures are worth more
    }
    runtime.shutdown_timeout(Duration::from_secs(5));
    if args.json {
        println!("{}", table::json(&rows)?);
    }
    Ok(Failures {
        requests: seen.tallies.iter().map(|tally| tally.errors).sum(),
        phases: outcomes.iter().filter(|it| !it.is_as_expected()).count(),
    })
}
