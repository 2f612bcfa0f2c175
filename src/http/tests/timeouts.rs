//! Too slow: each phase has its limit and its answer, and no other connection notices.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Response;

use crate::config::HttpOptions;
use crate::http::tests::support::{
    Server, count_responses, echo, hanging, header, status, text, until,
};
use crate::http::{Body, channel};

const SHORT: Duration = Duration::from_millis(40);

#[tokio::test(flavor = "local")]
async fn a_slow_head_gets_408() {
    let options = HttpOptions { header_timeout: SHORT, ..HttpOptions::default() };
    let server = Server::start(options, echo);
    for start in ["", "GET / HT", "GET / HTTP/1.1\r\nHost: a\r\n"] {
        let begin = Instant::now();
        let reply = server.say(start).await;
        assert_eq!(status(&reply), 408, "{start:?}: {reply}");
        assert_eq!(header(&reply, "connection"), Some("close"));
        assert!(begin.elapsed() >= SHORT, "early by {:?}", SHORT.checked_sub(begin.elapsed()));
    }
    assert_eq!(server.lane.meter().timeouts.get(), 3);
}

#[tokio::test(flavor = "local")]
async fn a_slow_head_behind_a_request_gets_408() {
    let options =
        HttpOptions { header_timeout: SHORT, hibernate_after: SHORT, ..HttpOptions::default() };
    let server = Server::start(options, echo);
    // In one piece with the request before it, and on its own.
    let mut client = server.connect().await;
    client.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2").await;
    assert_eq!(client.response().await.1, "GET /1 ");
    assert_eq!(status(&client.rest().await), 408);
    let mut client = server.connect().await;
    client.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.response().await.1, "GET /1 ");
    client.send("GET /2").await;
    assert_eq!(status(&client.rest().await), 408);
}

#[tokio::test(flavor = "local")]
async fn bytes_that_trickle_in_do_not_buy_time() {
    let options = HttpOptions { header_timeout: SHORT, ..HttpOptions::default() };
    let server = Server::start(options, echo);
    let mut client = server.connect().await;
    client.send("GET / HTTP/1.1\r\n").await;
    until(|| server.lane.open() == 1).await;
    let mut sent = 0;
    let reply = loop {
        // A drop every few milliseconds, for as long as the server listens.
        let end = tokio::time::timeout(Duration::from_millis(5), client.rest()).await;
        if let Ok(reply) = end {
            break reply;
        }
        sent += 1;
        assert!(sent < 1000, "it listens for ever");
        let _ = tokio::io::AsyncWriteExt::write_all(&mut client.stream, b"X: y\r\n").await;
    };
    // The answer may have been read by a call that was timed out; the end is what counts.
    assert!(reply.is_empty() || status(&reply) == 408);
    assert_eq!(server.lane.meter().timeouts.get(), 1);
}

#[tokio::test(flavor = "local")]
async fn an_idle_connection_is_closed_without_a_word() {
    for hibernate_after in [SHORT / 4, Duration::from_secs(9)] {
        let options =
            HttpOptions { keep_alive_timeout: SHORT, hibernate_after, ..HttpOptions::default() };
        let server = Server::start(options, echo);
        let mut client = server.connect().await;
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        client.response().await;
        assert_eq!(client.rest().await, "");
        assert_eq!(server.lane.meter().timeouts.get(), 0);
    }
}

#[tokio::test(flavor = "local")]
async fn a_slow_service_gets_504_and_is_dropped() {
    let (handler, _, dropped) = hanging();
    let options = HttpOptions { request_timeout: Some(SHORT), ..HttpOptions::default() };
    let server = Server::start(options, handler);
    let begin = Instant::now();
    let reply = server.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!((status(&reply), count_responses(&reply)), (504, 1), "{reply}");
    assert!(reply.ends_with(r#"{"detail":"Gateway Timeout"}"#), "{reply}");
    assert!(begin.elapsed() >= SHORT);
    assert_eq!(dropped.get(), 1);
}

#[tokio::test(flavor = "local")]
async fn a_slow_body_gets_408() {
    let options = HttpOptions { request_timeout: Some(SHORT), ..HttpOptions::default() };
    let server = Server::start(options, echo);
    let mut client = server.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello").await;
    let reply = client.rest().await;
    assert_eq!((status(&reply), count_responses(&reply)), (408, 1), "{reply}");
}

#[tokio::test(flavor = "local")]
async fn a_request_may_be_given_a_time_of_its_own() {
    let server = Server::start(HttpOptions::default(), |_, connection| {
        connection.set_request_timeout(Some(SHORT));
        Box::pin(std::future::pending())
    });
    let reply = server.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(status(&reply), 504);
    // Or all the time in the world; and it is this request's alone.
    let options = HttpOptions { request_timeout: Some(SHORT), ..HttpOptions::default() };
    let server = Server::start(options, |request, connection| {
        if request.uri().path() == "/long" {
            connection.set_request_timeout(None);
            Box::pin(async {
                tokio::time::sleep(SHORT * 3).await;
                text("long")
            })
        } else {
            Box::pin(std::future::pending())
        }
    });
    let mut client = server.connect().await;
    client.send("GET /long HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.response().await.1, "long");
    assert_eq!(status(&client.rest().await), 504);
}

#[tokio::test(flavor = "local")]
async fn a_response_that_has_started_may_take_its_time() {
    let options = HttpOptions { request_timeout: Some(SHORT), ..HttpOptions::default() };
    let server = Server::start(options, |_, _| {
        let (mut sender, body) = channel();
        tokio::task::spawn_local(async move {
            for _ in 0..3 {
                tokio::time::sleep(SHORT).await;
                sender.send(Bytes::from_static(b"x")).await.expect("the client stays");
            }
        });
        Box::pin(async { Response::new(body.into()) })
    });
    let mut client = server.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.until("0\r\n\r\n").await;
}

#[tokio::test(flavor = "local")]
async fn a_client_that_reads_nothing_is_cut_off() {
    let options = HttpOptions { write_timeout: SHORT, ..HttpOptions::default() };
    let server = Server::start(options, |_, _| {
        Box::pin(async { Response::new(Body::Full(vec![b'x'; 32 << 20].into())) })
    });
    let mut client = server.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    until(|| server.lane.meter().connections.get() == 1).await;
    until(|| server.lane.open() == 0).await;
    assert!(client.rest().await.len() < 32 << 20);
}

#[tokio::test(flavor = "local")]
async fn half_open_heads_do_not_keep_others_waiting() {
    let options = HttpOptions { header_timeout: SHORT * 4, ..HttpOptions::default() };
    let server = Server::start(options, echo);
    let mut slow = Vec::new();
    for _ in 0..300 {
        let mut client = server.connect().await;
        client.send("GET / HTTP/1.1\r\nHo").await;
        slow.push(client);
    }
    let mut client = server.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.response().await.1, "GET / ");
    for mut client in slow {
        assert_eq!(status(&client.rest().await), 408);
    }
    drop(client);
    until(|| server.lane.open() == 0).await;
}
