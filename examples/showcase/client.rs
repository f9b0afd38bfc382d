//! The clients: threads with blocking sockets, outside the runtime, so that nothing they measure is the runtime's word.
//!
//! `/ping` is **open loop**: requests are due on a schedule, and a latency counts from when the request was *due*. A
//! client that waits for a slow answer before it asks again, and starts its watch only then, leaves out just the
//! requests that would have been slow ("coordinated omission"). `/work` is closed loop: each connection asks again when
//! it has its answer, which keeps the number of requests in work constant and the queue bounded.
//!
//! Just enough HTTP/1.1: keep-alive, `Content-Length` bodies.

use std::io::{self, BufRead, BufReader, Error, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::record::{Kind, Record};

/// `/ping`s are dealt out to this many connections in turn: one late answer must not hold up the next request.
const PING_CONNECTIONS: u32 = 16;
/// A request that takes longer has failed. Generous: in some phases nobody is served until the runtime has noticed, and
/// the question is whether anything is lost, not whether it is late.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How much is asked.
pub(crate) struct Load {
    pub(crate) ping_rate: u32,
    pub(crate) work_connections: u32,
}

pub(crate) struct Clients {
    threads: Vec<JoinHandle<()>>,
    end: Arc<OnceLock<Instant>>,
}

impl Clients {
    pub(crate) fn start(
        [ping, work]: [Target; 2],
        load: &Load,
        record: &Arc<Record>,
    ) -> io::Result<Clients> {
        let mut clients = Clients {
            threads: Vec::new(),
            end: Arc::default(),
        };
        for _ in 0..load.work_connections {
            clients.spawn("work", &work, record, ask_without_pause)?;
        }
        let (begun, between) = (Instant::now(), Duration::from_secs(1) / load.ping_rate);
        for nth in 0..PING_CONNECTIONS {
            let first = begun + between * nth;
            clients.spawn("ping", &ping, record, move |connection, record, end| {
                ask_on_schedule(connection, record, end, first, between * PING_CONNECTIONS);
            })?;
        }
        Ok(clients)
    }

    /// Returns when every request that was due until now has been answered or has failed.
    pub(crate) fn stop(self) {
        self.end.get_or_init(Instant::now);
        for thread in self.threads {
            thread.join().expect("a client panicked");
        }
    }

    fn spawn(
        &mut self,
        name: &str,
        target: &Target,
        record: &Arc<Record>,
        ask: impl FnOnce(Connection, &Record, &OnceLock<Instant>) + Send + 'static,
    ) -> io::Result<()> {
        let connection = Connection {
            target: target.clone(),
            stream: None,
        };
        let (record, end) = (Arc::clone(record), Arc::clone(&self.end));
        let thread = thread::Builder::new()
            .name(name.into())
            .stack_size(256 << 10);
        self.threads
            .push(thread.spawn(move || ask(connection, &record, &end))?);
        Ok(())
    }
}

fn ask_on_schedule(
    mut connection: Connection,
    record: &Record,
    end: &OnceLock<Instant>,
    first: Instant,
    period: Duration,
) {
    let mut due = first;
    loop {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        // Compared with `due` and not with now: what was due before the end is asked, however late it is.
        if end.get().is_some_and(|end| due >= *end) {
            return;
        }
        let result = connection.get();
        record.add(Kind::Ping, due, due.elapsed(), result);
        due += period;
    }
}

fn ask_without_pause(mut connection: Connection, record: &Record, end: &OnceLock<Instant>) {
    while end.get().is_none() {
        let asked = Instant::now();
        let result = connection.get();
        if result.is_err() {
            thread::sleep(Duration::from_millis(10)); // a server that refuses must not be asked a million times
        }
        record.add(Kind::Work, asked, asked.elapsed(), result);
    }
}

/// What to ask, of whom, and the right answer.
#[derive(Clone)]
pub(crate) struct Target {
    address: SocketAddr,
    request: String,
    answer: Vec<u8>,
}

impl Target {
    pub(crate) fn new(address: SocketAddr, path: &str, answer: &str) -> Target {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n");
        Target {
            address,
            request,
            answer: answer.into(),
        }
    }
}

/// One keep-alive connection; after an error the next request opens a new one.
struct Connection {
    target: Target,
    stream: Option<BufReader<TcpStream>>,
}

impl Connection {
    fn get(&mut self) -> io::Result<()> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => BufReader::new(connect(self.target.address)?),
        };
        stream.get_mut().write_all(self.target.request.as_bytes())?;
        let (status, body) = read_response(&mut stream)?;
        if !status.starts_with("HTTP/1.1 200 ") || body != self.target.answer {
            let body = String::from_utf8_lossy(&body);
            return Err(Error::other(format!(
                "wrong answer: {status:?} with {body:?}"
            )));
        }
        self.stream = Some(stream);
        Ok(())
    }
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    Ok(stream)
}

/// Status line and body. Only calls that go on after `EINTR`: a socket with a timeout gets that from every signal that
/// is handled on this thread, and SIGQUIT may be.
fn read_response(stream: &mut BufReader<TcpStream>) -> io::Result<(String, Vec<u8>)> {
    let status = read_line(stream)?;
    let mut length = 0;
    loop {
        let line = read_line(stream)?;
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value
                .trim()
                .parse()
                .map_err(|_| Error::new(ErrorKind::InvalidData, "length"))?;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok((status, body))
}

fn read_line(stream: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    line.truncate(line.trim_end().len());
    Ok(line)
}
