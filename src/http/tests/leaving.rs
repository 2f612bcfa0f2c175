//! The client leaves: the service's future is dropped, whatever the connection was about.

use std::time::Duration;

use tokio::io::AsyncWriteExt;

use crate::config::HttpOptions;
use crate::http::tests::support::{Server, hanging, until};

async fn is_dropped_when_the_client_leaves(bytes: &str, reset: bool) {
    let (handler, begun, dropped) = hanging();
    let server = Server::start(HttpOptions::default(), handler);
    let mut client = server.connect().await;
    client.send(bytes).await;
    until(|| begun.get() == 1).await;
    if reset {
        client.stream.set_zero_linger().expect("a socket");
    }
    drop(client);
    until(|| dropped.get() == 1).await;
    until(|| server.lane.open() == 0).await;
    assert_eq!(begun.get(), 1);
    assert_eq!(server.lane.meter().in_flight.get(), 0);
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[tokio::test(flavor = "local")]
async fn a_request_alone() {
    is_dropped_when_the_client_leaves(GET, false).await;
    is_dropped_when_the_client_leaves(GET, true).await;
}

#[tokio::test(flavor = "local")]
async fn a_request_with_others_behind_it() {
    let three = [GET, GET, GET].concat();
    is_dropped_when_the_client_leaves(&three, false).await;
    is_dropped_when_the_client_leaves(&three, true).await;
}

#[tokio::test(flavor = "local")]
async fn a_request_with_more_behind_it_than_is_buffered() {
    is_dropped_when_the_client_leaves(&GET.repeat(2_000), false).await;
    is_dropped_when_the_client_leaves(&GET.repeat(2_000), true).await;
}

#[tokio::test(flavor = "local")]
async fn a_request_whose_body_nobody_reads() {
    let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nhello";
    is_dropped_when_the_client_leaves(post, false).await;
    is_dropped_when_the_client_leaves(post, true).await;
}

#[tokio::test(flavor = "local")]
async fn a_request_behind_one_that_was_answered_half_closed() {
    let (handler, begun, dropped) = hanging();
    let server = Server::start(HttpOptions::default(), move |request, connection| {
        if request.uri().path() == "/fast" {
            Box::pin(async { crate::http::tests::support::text("fast") })
        } else {
            handler(request, connection)
        }
    });
    let mut client = server.connect().await;
    client.send(format!("GET /fast HTTP/1.1\r\nHost: a\r\n\r\n{GET}{GET}")).await;
    client.stream.shutdown().await.expect("a socket");
    // The answer that was finished is still delivered.
    assert_eq!(client.response().await.1, "fast");
    assert_eq!(client.rest().await, "");
    until(|| dropped.get() == 1 && server.lane.open() == 0).await;
    assert_eq!(begun.get(), 1);
}

#[tokio::test(flavor = "local")]
async fn a_client_that_stays_is_left_alone() {
    let (handler, begun, dropped) = hanging();
    let options =
        HttpOptions { hibernate_after: Duration::from_millis(8), ..HttpOptions::default() };
    let server = Server::start(options, handler);
    let mut client = server.connect().await;
    client.send([GET, GET].concat()).await;
    until(|| begun.get() == 1).await;
    let ticks = server.lane.clock.now();
    until(|| server.lane.clock.now() > ticks + 20).await;
    assert_eq!(dropped.get(), 0);
    drop(client);
    until(|| dropped.get() == 1).await;
}

#[tokio::test(flavor = "local")]
async fn many_resets_leave_nothing_behind() {
    let (handler, begun, dropped) = hanging();
    let server = Server::start(HttpOptions::default(), handler);
    for round in 1..=200 {
        let mut client = server.connect().await;
        client.send(GET).await;
        until(|| begun.get() == round).await;
        client.stream.set_zero_linger().expect("a socket");
    }
    until(|| dropped.get() == 200 && server.lane.open() == 0).await;
    let load = server.lane.load().load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(load, 0);
}
