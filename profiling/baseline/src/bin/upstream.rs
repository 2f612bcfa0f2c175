//! The service that the mixed workload waits for: it sleeps for as long as it is told.
//!
//! `upstream PORT` serves on 127.0.0.1 until it is killed; one thread does everything. A client
//! sends a line with a number of microseconds and gets `ok` and a newline once they have passed.
//! Tokio's timers have a resolution of a millisecond, which is what real services answer in.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, LocalOptions};

const LONGEST: u64 = 60_000_000;

fn main() -> io::Result<()> {
    let port = std::env::args().nth(1).and_then(|word| word.parse::<u16>().ok());
    let Some(port) = port else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "usage: upstream PORT"));
    };
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    runtime.block_on(async move {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        loop {
            if let Ok((stream, _)) = listener.accept().await {
                tokio::task::spawn_local(async move {
                    // A connection that breaks concerns nobody else: its error has no reader here.
                    let _ = converse(stream).await;
                });
            }
        }
    })
}

async fn converse(stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    while stream.read_line(&mut line).await? > 0 {
        let Ok(microseconds) = line.trim().parse::<u64>() else {
            return Ok(()); // not one of ours
        };
        tokio::time::sleep(Duration::from_micros(microseconds.min(LONGEST))).await;
        stream.write_all(b"ok\n").await?;
        line.clear();
    }
    Ok(())
}
