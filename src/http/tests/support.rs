//! A lane that serves a closure on a free port, and a client that speaks bytes.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::config::HttpOptions;
use crate::http::{
    Body, Called, ConnectionInfo, HttpLane, Limits, Listener, Service, StopHandle, accept_loop,
    stop_signal,
};
use crate::telemetry::{Clock, LaneMeter, RouteMeter};

pub(super) type Reply = Pin<Box<dyn Future<Output = Response<Body>>>>;

/// A service made of a closure.
pub(super) struct Handler<F>(F);

impl<F> Service for Handler<F>
where
    F: Fn(Request<Incoming>, Rc<ConnectionInfo>) -> Reply + 'static,
{
    type Future = Reply;

    fn call(
        &self,
        head: &mut Parts,
        body: Incoming,
        connection: &Rc<ConnectionInfo>,
    ) -> Called<Reply> {
        Called::Working((self.0)(request(head, body), Rc::clone(connection)))
    }
}

fn request(head: &mut Parts, body: Incoming) -> Request<Incoming> {
    let mut request = Request::new(body);
    *request.method_mut() = std::mem::take(&mut head.method);
    *request.uri_mut() = std::mem::take(&mut head.uri);
    *request.version_mut() = head.version;
    *request.headers_mut() = std::mem::take(&mut head.headers);
    request
}

/// A meter for lane `index`.
pub(super) fn meter(index: usize) -> Arc<LaneMeter> {
    Arc::new(LaneMeter::new(index, Clock::of_process(|| None)))
}

/// Where requests are counted: they meet no route here.
pub(super) fn routes() -> Arc<[RouteMeter]> {
    Arc::new([RouteMeter::default()])
}

pub(super) struct Server {
    pub(super) lane: Rc<HttpLane>,
    pub(super) address: SocketAddr,
    pub(super) stop: StopHandle,
}

impl Server {
    pub(super) fn start<F>(options: HttpOptions, handler: F) -> Self
    where
        F: Fn(Request<Incoming>, Rc<ConnectionInfo>) -> Reply + 'static,
    {
        let limits = Limits::new(&options);
        let lane = HttpLane::new(meter(0), routes(), Rc::new(options), Arc::clone(&limits));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (stop, signal) = stop_signal();
        let service = Rc::new(Handler(handler));
        let home = Rc::clone(&lane);
        tokio::task::spawn_local(async move {
            let listener = Listener::from(listener);
            accept_loop(listener, limits, signal, |accepted| home.serve(accepted, &service))
                .await
                .expect("the listener registers");
        });
        Self { lane, address, stop }
    }

    pub(super) async fn connect(&self) -> Client {
        let stream = within(TcpStream::connect(self.address)).await.expect("it listens");
        Client { stream, buffer: Vec::new() }
    }

    /// One connection's worth of bytes: all that comes back until the server closes.
    pub(super) async fn say(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut client = self.connect().await;
        client.send(bytes).await;
        client.rest().await
    }
}

/// Answers every request at once with its method, path and body.
pub(super) fn echo(request: Request<Incoming>, connection: Rc<ConnectionInfo>) -> Reply {
    Box::pin(async move {
        let line = format!("{} {} ", request.method(), request.uri().path());
        match crate::http::read_all(request.into_body(), &connection, 1 << 20).await {
            Ok(body) => Response::new(Body::Full([line.as_bytes(), &body].concat().into())),
            Err(error) => crate::http::closing_problem(error.status()),
        }
    })
}

pub(super) fn text(text: &'static str) -> Response<Body> {
    Response::new(Body::Full(Bytes::from_static(text.as_bytes())))
}

/// Fails a test that hangs, with a place to look at.
#[track_caller]
pub(super) fn within<F: Future>(future: F) -> impl Future<Output = F::Output> {
    let place = std::panic::Location::caller();
    async move {
        match tokio::time::timeout(Duration::from_secs(10), future).await {
            Ok(output) => output,
            Err(_) => panic!("nothing happened for 10 s at {place}"),
        }
    }
}

/// Turns of the runtime until `condition` holds.
#[track_caller]
pub(super) fn until(condition: impl Fn() -> bool) -> impl Future<Output = ()> {
    within(async move {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
}

pub(super) struct Client {
    pub(super) stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    pub(super) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        within(self.stream.write_all(bytes.as_ref())).await.expect("the server reads");
    }

    async fn fill(&mut self) -> usize {
        let read = within(self.stream.read_buf(&mut self.buffer)).await;
        // A reset is an end as well; what matters is what came before.
        read.unwrap_or(0)
    }

    /// Up to and including `end`.
    pub(super) async fn until(&mut self, end: &str) -> String {
        loop {
            let found = memchr::memmem::find(&self.buffer, end.as_bytes());
            if let Some(start) = found {
                let rest = self.buffer.split_off(start + end.len());
                let text = std::mem::replace(&mut self.buffer, rest);
                return String::from_utf8_lossy(&text).into_owned();
            }
            if self.fill().await == 0 {
                panic!("closed before {end:?}: {:?}", String::from_utf8_lossy(&self.buffer));
            }
        }
    }

    /// A response that says its length: its head and its body.
    pub(super) async fn response(&mut self) -> (String, String) {
        let head = self.until("\r\n\r\n").await;
        let length = header(&head, "content-length").expect("a length").parse().expect("a number");
        while self.buffer.len() < length {
            assert!(self.fill().await > 0, "closed within a body");
        }
        let rest = self.buffer.split_off(length);
        let body = std::mem::replace(&mut self.buffer, rest);
        (head, String::from_utf8_lossy(&body).into_owned())
    }

    /// All that comes until the server closes.
    pub(super) async fn rest(&mut self) -> String {
        while self.fill().await > 0 {}
        String::from_utf8_lossy(&std::mem::take(&mut self.buffer)).into_owned()
    }
}

pub(super) fn header<'head>(head: &'head str, name: &str) -> Option<&'head str> {
    head.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

pub(super) fn status(reply: &str) -> u16 {
    reply.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
}

/// How many responses there are in `bytes`.
pub(super) fn count_responses(bytes: &str) -> usize {
    bytes.matches("HTTP/1.").count()
}

/// Sets its flag when it is dropped.
pub(super) struct Flag(Rc<Cell<bool>>);

impl Flag {
    pub(super) fn new() -> (Self, Rc<Cell<bool>>) {
        let dropped = Rc::new(Cell::new(false));
        (Self(Rc::clone(&dropped)), dropped)
    }
}

impl Drop for Flag {
    fn drop(&mut self) {
        self.0.set(true);
    }
}

pub(super) type Count = Rc<Cell<usize>>;

/// A handler that never answers, and says when it was begun and dropped.
pub(super) fn hanging()
-> (impl Fn(Request<Incoming>, Rc<ConnectionInfo>) -> Reply + 'static, Count, Count) {
    struct Dropped(Count);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
        }
    }

    let (begun, dropped) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let (begin, drop) = (Rc::clone(&begun), Rc::clone(&dropped));
    let handler = move |request: Request<Incoming>, _| -> Reply {
        begin.set(begin.get() + 1);
        let count = Dropped(Rc::clone(&drop));
        Box::pin(async move {
            let _kept = (count, request);
            std::future::pending().await
        })
    };
    (handler, begun, dropped)
}

/// What a test hands to a handler once.
pub(super) fn once<T: 'static>(value: T) -> Rc<RefCell<Option<T>>> {
    Rc::new(RefCell::new(Some(value)))
}
