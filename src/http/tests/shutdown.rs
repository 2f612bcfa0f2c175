//! The end of a lane: what is idle goes at once, what is busy finishes, what is late is dropped.

use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::config::HttpOptions;
use crate::http::tests::support::{Server, echo, hanging, header, status, text, until, within};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[tokio::test(flavor = "local")]
async fn fresh_and_idle_connections_are_closed_at_once() {
    let options =
        HttpOptions { hibernate_after: Duration::from_millis(16), ..HttpOptions::default() };
    let server = Server::start(options, echo);
    let mut sleeping = server.connect().await;
    sleeping.send(GET).await;
    sleeping.response().await;
    until(|| server.lane.registry.borrow().are_all_asleep()).await;
    let mut idle = server.connect().await;
    idle.send(GET).await;
    idle.response().await;
    let mut fresh = server.connect().await;
    until(|| server.lane.open() == 3).await;
    server.lane.drain();
    within(server.lane.wait_empty()).await;
    for client in [&mut sleeping, &mut idle, &mut fresh] {
        assert_eq!(client.rest().await, "");
    }
}

#[tokio::test(flavor = "local")]
async fn a_request_in_flight_is_finished_and_says_close() {
    let gate = Rc::new(Notify::new());
    let open = Rc::clone(&gate);
    let server = Server::start(HttpOptions::default(), move |_, connection| {
        let gate = Rc::clone(&gate);
        Box::pin(async move {
            gate.notified().await;
            assert!(connection.is_draining());
            text("done")
        })
    });
    let mut client = server.connect().await;
    client.send(GET).await;
    until(|| server.lane.meter().in_flight.get() == 1).await;
    server.lane.drain();
    server.lane.drain();
    let empty = server.lane.wait_empty();
    open.notify_one();
    let (head, body) = client.response().await;
    assert_eq!(body, "done");
    assert_eq!(header(&head, "connection"), Some("close"));
    assert_eq!(client.rest().await, "");
    within(empty).await;
}

#[tokio::test(flavor = "local")]
async fn a_request_that_was_sent_before_the_drain_is_answered() {
    let options =
        HttpOptions { hibernate_after: Duration::from_millis(16), ..HttpOptions::default() };
    let server = Server::start(options, echo);
    let mut idle = server.connect().await;
    idle.send(GET).await;
    idle.response().await;
    let mut half = server.connect().await;
    let begun = server.lane.meter().bytes_received.get();
    half.send("GET /half HTTP/1.1\r\n").await;
    until(|| server.lane.meter().bytes_received.get() > begun).await;
    // Both in one go: the bytes are in the socket when the drain begins.
    idle.stream.try_write(GET.as_bytes()).expect("room");
    tokio::time::sleep(Duration::from_millis(1)).await;
    server.lane.drain();
    let (head, _) = idle.response().await;
    assert_eq!(status(&head), 200);
    half.send("Host: a\r\n\r\n").await;
    let (head, body) = half.response().await;
    assert_eq!(body, "GET /half ");
    assert_eq!(header(&head, "connection"), Some("close"));
    within(server.lane.wait_empty()).await;
}

#[tokio::test(flavor = "local")]
async fn half_a_head_does_not_hold_up_the_end() {
    let server = Server::start(HttpOptions::default(), echo);
    let mut halves = Vec::new();
    // The first bytes of a connection, and bytes behind a request that was answered.
    for before in ["", GET] {
        let mut half = server.connect().await;
        half.send(before).await;
        if !before.is_empty() {
            half.response().await;
        }
        let begun = server.lane.meter().bytes_received.get();
        half.send("GET / HTTP/1.1\r\nHost:").await;
        until(|| server.lane.meter().bytes_received.get() > begun).await;
        halves.push(half);
    }
    let began = Instant::now();
    server.lane.drain();
    let late = server.connect().await;
    late.stream.try_write(b"GET / HTTP/1.1\r\n").expect("room");
    server.stop.stop();
    halves.push(late);
    for half in &mut halves {
        assert_eq!(half.rest().await, "");
    }
    within(server.lane.wait_empty()).await;
    assert!(began.elapsed() < Duration::from_secs(2));
}

#[tokio::test(flavor = "local")]
async fn a_connection_that_arrives_during_the_drain_is_answered_once() {
    let server = Server::start(HttpOptions::default(), echo);
    let mut client = server.connect().await;
    client.stream.try_write(GET.as_bytes()).expect("room");
    server.lane.drain();
    server.stop.stop();
    let (head, _) = client.response().await;
    assert_eq!(header(&head, "connection"), Some("close"));
    assert_eq!(client.rest().await, "");
    within(server.lane.wait_empty()).await;
}

#[tokio::test(flavor = "local")]
async fn what_is_left_is_dropped_on_demand() {
    let (handler, begun, dropped) = hanging();
    let server = Server::start(HttpOptions::default(), handler);
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut client = server.connect().await;
        client.send(GET).await;
        clients.push(client);
    }
    until(|| begun.get() == 5).await;
    server.lane.drain();
    assert_eq!(dropped.get(), 0);
    server.lane.abort_all();
    within(server.lane.wait_empty()).await;
    assert_eq!(dropped.get(), 5);
    for client in &mut clients {
        assert_eq!(client.rest().await, "");
    }
    // Too late for anybody else.
    let mut late = server.connect().await;
    late.send(GET).await;
    assert_eq!(late.rest().await, "");
}

#[tokio::test(flavor = "local")]
async fn a_lane_without_connections_is_empty() {
    let server = Server::start(HttpOptions::default(), echo);
    within(server.lane.wait_empty()).await;
    server.lane.drain();
    within(server.lane.wait_empty()).await;
}
