//! Accepting: limits, both kinds of socket, another thread, and the stop.

use std::os::unix::net::UnixListener;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::config::HttpOptions;
use crate::http::tests::support::{
    Server, count_responses, echo, hanging, header, meter, routes, status, until, within,
};
use crate::http::{
    Accepted, Called, HttpLane, Limits, Listener, Service, accept_loop, stop_signal,
};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[tokio::test(flavor = "local")]
async fn a_connection_too_many_is_told_to_come_back() {
    let options = HttpOptions { limit_connections: Some(2), ..HttpOptions::default() };
    let server = Server::start(options, echo);
    let mut first = server.connect().await;
    let second = server.connect().await;
    until(|| server.lane.open() == 2).await;
    let reply = server.say(GET).await;
    assert_eq!((status(&reply), count_responses(&reply)), (503, 1));
    assert_eq!(header(&reply, "retry-after"), Some("1"));
    // Those within the limit do not notice, and a place that is free is taken.
    first.send(GET).await;
    assert_eq!(first.response().await.1, "GET / ");
    drop(second);
    until(|| server.lane.open() == 1).await;
    let mut third = server.connect().await;
    third.send(GET).await;
    assert_eq!(third.response().await.1, "GET / ");
}

#[tokio::test(flavor = "local")]
async fn a_request_too_many_is_told_to_come_back() {
    let (handler, begun, dropped) = hanging();
    let options = HttpOptions { limit_concurrency: Some(1), ..HttpOptions::default() };
    let server = Server::start(options, move |request, connection| {
        if request.uri().path() == "/hang" {
            handler(request, connection)
        } else {
            echo(request, connection)
        }
    });
    let mut busy = server.connect().await;
    busy.send("GET /hang HTTP/1.1\r\nHost: a\r\n\r\n").await;
    until(|| begun.get() == 1).await;
    // The connection is not at fault and stays.
    let mut client = server.connect().await;
    for _ in 0..2 {
        client.send(GET).await;
        let (head, _) = client.response().await;
        assert_eq!(status(&head), 503);
        assert_eq!(header(&head, "retry-after"), Some("1"));
    }
    drop(busy);
    until(|| dropped.get() == 1).await;
    client.send(GET).await;
    assert_eq!(client.response().await.1, "GET / ");
}

#[tokio::test(flavor = "local")]
async fn a_unix_socket_is_served_as_well() {
    let directory = std::env::temp_dir().join(format!("treadle-http-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory");
    let path = directory.join("socket");
    let listener = UnixListener::bind(&path).expect("a free path");
    let options = HttpOptions::default();
    let limits = Limits::new(&options);
    let lane = HttpLane::new(meter(3), routes(), Rc::new(options), Arc::clone(&limits));
    let (stop, signal) = stop_signal();
    let service = Rc::new(Name);
    let home = Rc::clone(&lane);
    let accepting = tokio::task::spawn_local(async move {
        accept_loop(Listener::from(listener), limits, signal, |accepted| {
            home.serve(accepted, &service);
        })
        .await
    });
    let mut client = tokio::net::UnixStream::connect(&path).await.expect("it listens");
    client.write_all(b"GET / HTTP/1.0\r\n\r\n").await.expect("it reads");
    let mut reply = String::new();
    within(client.read_to_string(&mut reply)).await.expect("an answer");
    assert!(reply.ends_with("unix on lane 3"), "{reply}");
    stop.stop();
    within(accepting).await.expect("no panic").expect("no error");
    std::fs::remove_dir_all(&directory).expect("it is ours");
}

/// Says where it was called.
struct Name;

impl Service for Name {
    type Future = std::future::Pending<http::Response<crate::http::Body>>;

    fn call(
        &self,
        _: &mut http::request::Parts,
        _: hyper::body::Incoming,
        connection: &Rc<crate::http::ConnectionInfo>,
    ) -> Called<Self::Future> {
        let name = format!("{} on lane {}", connection.peer(), connection.lane().id());
        Called::Answered(http::Response::new(crate::http::Body::Full(name.into())).into())
    }
}

#[tokio::test(flavor = "local")]
async fn connections_may_be_accepted_on_another_thread() {
    let options = HttpOptions::default();
    let limits = Limits::new(&options);
    let lane = HttpLane::new(meter(0), routes(), Rc::new(options), Arc::clone(&limits));
    let load = Arc::clone(lane.load());
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    let (stop, signal) = stop_signal();
    let (placed, mut arrivals) = tokio::sync::mpsc::unbounded_channel::<Accepted>();
    let (done, finished) = mpsc::channel();
    let placing = Arc::clone(&load);
    std::thread::spawn(move || {
        accept_elsewhere(listener, limits, signal, move |accepted| {
            let accepted = accepted.place_on(&placing).expect("it can be taken from the runtime");
            let _ = placed.send(accepted);
        });
        done.send(()).expect("the test waits");
    });
    let home = Rc::clone(&lane);
    let service = Rc::new(Name);
    tokio::task::spawn_local(async move {
        while let Some(accepted) = arrivals.recv().await {
            home.serve(accepted, &service);
        }
    });
    let mut client = tokio::net::TcpStream::connect(address).await.expect("it listens");
    client.write_all(GET.as_bytes()).await.expect("it reads");
    let mut start = [0; 15];
    within(client.read_exact(&mut start)).await.expect("an answer");
    assert_eq!(&start, b"HTTP/1.1 200 OK");
    assert_eq!(load.load(Ordering::Relaxed), 1);
    drop(client);
    until(|| load.load(Ordering::Relaxed) == 0).await;
    stop.stop();
    within(async {
        while finished.try_recv().is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::main(flavor = "current_thread")]
async fn accept_elsewhere(
    listener: std::net::TcpListener,
    limits: Arc<Limits>,
    signal: crate::http::StopSignal,
    place: impl FnMut(Accepted),
) {
    accept_loop(listener.into(), limits, signal, place).await.expect("the listener registers");
}

#[tokio::test(flavor = "local")]
async fn the_queue_is_emptied_before_the_listener_closes() {
    let options = HttpOptions::default();
    let limits = Limits::new(&options);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    // Three clients are connected, as far as they know, before anybody accepts.
    let clients = (0..3)
        .map(|_| std::net::TcpStream::connect(address).expect("the queue has room"))
        .collect::<Vec<_>>();
    let (stop, signal) = stop_signal();
    stop.stop();
    let mut accepted = Vec::new();
    within(accept_loop(listener.into(), limits, signal, |one| accepted.push(one)))
        .await
        .expect("the listener registers");
    assert_eq!(accepted.len(), clients.len());
    assert!(std::net::TcpStream::connect(address).is_err());
}
