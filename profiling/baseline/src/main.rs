//! The floor: hyper on one Tokio current-thread runtime, fixed bytes for every request.
//!
//! Same crates, allocator, build profile and socket options as treadle, and nothing of Python: the
//! difference between the two is what treadle and the interpreter cost. `baseline PORT` serves on
//! 127.0.0.1 until SIGTERM; one thread does everything.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, LocalOptions};
use tokio::signal::unix::{SignalKind, signal};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BACKLOG: i32 = 1024;
const ANSWER: &[u8] = br#"{"message":"hello","n":1}"#;

fn main() -> io::Result<()> {
    let port = std::env::args().nth(1).and_then(|word| word.parse().ok());
    let Some(port) = port else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "usage: baseline PORT"));
    };
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    runtime.block_on(serve(SocketAddr::from(([127, 0, 0, 1], port))))
}

async fn serve(address: SocketAddr) -> io::Result<()> {
    let listener = listen(address)?;
    let mut end = signal(SignalKind::terminate())?;
    tokio::task::spawn_local(accept(listener));
    end.recv().await;
    Ok(()) // from here `main` returns: a build that counts what runs writes it down then
}

async fn accept(listener: TcpListener) {
    loop {
        // What accept reports concerns the one connection that failed, or passes by itself.
        if let Ok((stream, _)) = listener.accept().await {
            tokio::task::spawn_local(converse(stream));
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

async fn converse(stream: TcpStream) {
    if stream.set_nodelay(true).is_err() {
        return; // the client is gone already
    }
    // A connection that breaks concerns nobody else: its error has no reader here.
    let _ = http1::Builder::new()
        .pipeline_flush(true)
        .serve_connection(TokioIo::new(stream), service_fn(answer))
        .await;
}

async fn answer(_request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut response = Response::new(Full::new(Bytes::from_static(ANSWER)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}
