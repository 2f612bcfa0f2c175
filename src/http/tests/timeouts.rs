//! Too slow: each phase has its limit and its answer, and no other connection notices.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Response;

use crate::config::HttpOptions;
use crate::http::tests::support::{
    Client, Server, count_responses, echo, hanging, header, status, text, until,
};
use crate::http::{Body, RequestBody, channel};

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

/// Sends a request that the lane's runtime does not know of yet.
fn send_unseen(server: &Server, client: &Client) {
    const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

    assert_eq!(client.stream.try_write(GET).expect("it is connected"), GET.len());
    let registry = server.lane.registry.borrow();
    while !registry.get(0).expect("the only connection").has_unread() {
        std::thread::yield_now();
    }
}

#[tokio::test(flavor = "local")]
async fn a_request_that_comes_in_the_turn_in_which_the_idle_time_ends_is_answered() {
    // Asleep by then, and awake.
    for hibernate_after in [SHORT, Duration::from_secs(9)] {
        let options = HttpOptions { hibernate_after, ..HttpOptions::default() };
        let server = Server::start(options, echo);
        let lane = &server.lane;
        let mut client = server.connect().await;
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        client.response().await;
        until(|| hibernate_after > SHORT || lane.registry.borrow().are_all_asleep()).await;
        let end_idle_time = || {
            for _ in 0..=lane.ticks.keep_alive {
                lane.clock.advance();
            }
            lane.registry.borrow_mut().sweep(lane.clock.now(), &lane.ticks);
        };
        send_unseen(&server, &client);
        end_idle_time();
        assert_eq!(client.response().await.1, "GET / ");
        end_idle_time();
        assert_eq!(client.rest().await, "");
    }
}

#[tokio::test(flavor = "local")]
async fn a_request_that_comes_in_the_turn_in_which_a_drain_begins_is_answered() {
    let server = Server::start(HttpOptions::default(), echo);
    let mut client = server.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.response().await;
    send_unseen(&server, &client);
    server.lane.drain();
    assert_eq!(client.response().await.1, "GET / ");
    assert_eq!(client.rest().await, "");
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
async fn a_body_that_a_response_waits_for_has_a_limit() {
    let options = HttpOptions { request_timeout: Some(SHORT), ..HttpOptions::default() };
    let server = Server::start(options, |request, connection| {
        let (mut sender, body) = channel();
        let mut unread = RequestBody::new(request.into_body(), &connection, 1 << 20);
        tokio::task::spawn_local(async move {
            while let Some(Ok(chunk)) = unread.chunk().await {
                sender.send(chunk).await.expect("the client stays");
            }
            sender.abort();
        });
        Box::pin(async { Response::new(body.into()) })
    });
    let mut client = server.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nx").await;
    client.until("1\r\nx\r\n").await;
    assert_eq!(client.rest().await, "");
    until(|| server.lane.open() == 0).await;
    assert_eq!(server.lane.meter().timeouts.get(), 1);
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
