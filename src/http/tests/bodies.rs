//! How often a connection is polled for a request with a body.

use crate::config::HttpOptions;
use crate::http::RequestBody;
use crate::http::tests::support::{Client, Server, echo, text};

async fn polls_of(server: &Server, client: &mut Client, request: &str, answer: &str) -> u64 {
    let before = server.lane.meter().polls.get();
    client.send(request).await;
    assert_eq!(client.response().await.1, answer);
    server.lane.meter().polls.get() - before
}

#[tokio::test(flavor = "local")]
async fn a_body_in_one_piece_costs_no_poll_of_its_own() {
    let server = Server::start(HttpOptions::default(), echo);
    let mut client = server.connect().await;
    let get = "GET /a HTTP/1.1\r\nHost: a\r\n\r\n";
    let post = "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
    polls_of(&server, &mut client, get, "GET /a ").await;
    for _ in 0..3 {
        assert_eq!(polls_of(&server, &mut client, get, "GET /a ").await, 1);
        assert_eq!(polls_of(&server, &mut client, post, "POST /a hello").await, 1);
    }
}

#[tokio::test(flavor = "local")]
async fn nor_does_one_that_nobody_reads() {
    let server = Server::start(HttpOptions::default(), |request, connection| {
        let body = RequestBody::new(request.into_body(), &connection, 1 << 20);
        drop(body);
        Box::pin(async { text("ok") })
    });
    let mut client = server.connect().await;
    let post = "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
    polls_of(&server, &mut client, post, "ok").await;
    for _ in 0..3 {
        assert_eq!(polls_of(&server, &mut client, post, "ok").await, 1);
    }
}

#[tokio::test(flavor = "local")]
async fn pipelined_requests_with_bodies_are_all_answered() {
    let server = Server::start(HttpOptions::default(), echo);
    let mut client = server.connect().await;
    let post = "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
    client.send(post.repeat(100)).await;
    for _ in 0..100 {
        assert_eq!(client.response().await.1, "POST /a hello");
    }
}
