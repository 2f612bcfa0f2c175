//! Bad input: a clear answer, one only, and the connection is closed.

use crate::config::HttpOptions;
use crate::http::tests::support::{Server, count_responses, echo, header, status};

/// Says `bytes` on a connection of its own; expects one answer with `expected` and then the end.
async fn refuses(server: &Server, bytes: impl AsRef<[u8]>, expected: u16) {
    let shown = String::from_utf8_lossy(bytes.as_ref()).into_owned();
    let shown = &shown[..shown.len().min(120)];
    let reply = server.say(bytes).await;
    assert_eq!(status(&reply), expected, "{shown:?} got {reply:?}");
    assert_eq!(count_responses(&reply), 1, "{shown:?} got {reply:?}");
    assert_eq!(header(&reply, "connection"), Some("close"), "{shown:?} got {reply:?}");
}

#[tokio::test(flavor = "local")]
async fn a_malformed_head_is_refused() {
    let server = Server::start(HttpOptions::default(), echo);
    for head in [
        "GET\r\n\r\n",
        "G@T / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/2\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.20\r\nHost: a\r\n\r\n",
        "GET / XTTP/1.1\r\nHost: a\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n: empty\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n folded\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
        "GET / HTTP/1.1\rHost: a\r\r",
        "\x16\x03\x01\x02\x00\x01\x00\x01\u{fc}\x03\x03",
    ] {
        refuses(&server, head, 400).await;
    }
}

#[tokio::test(flavor = "local")]
async fn a_missing_doubled_or_impossible_host_is_refused() {
    let server = Server::start(HttpOptions::default(), echo);
    refuses(&server, "GET / HTTP/1.1\r\n\r\n", 400).await;
    refuses(&server, "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400).await;
    refuses(&server, "GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", 400).await;
    refuses(&server, "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400).await;
    refuses(&server, "GET / HTTP/1.1\r\nHost: user@a\r\n\r\n", 400).await;
}

#[tokio::test(flavor = "local")]
async fn two_lengths_are_refused_equal_ones_too() {
    let server = Server::start(HttpOptions::default(), echo);
    let start = "POST / HTTP/1.1\r\nHost: a\r\n";
    for lengths in [
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nX-Between: y\r\ncONTENT-lENGTH:5\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 5x\r\n",
        "Content-Length: 99999999999999999999\r\n",
        "Content-Length:\r\n",
    ] {
        refuses(&server, format!("{start}{lengths}\r\nhello"), 400).await;
    }
    refuses(
        &server,
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n",
        400,
    )
    .await;
}

#[tokio::test(flavor = "local")]
async fn two_equal_lengths_are_refused_wherever_the_head_is_split() {
    let server = Server::start(HttpOptions::default(), echo);
    let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nhi";
    for split in [1, 20, 40, 45, 60, head.len() - 3] {
        let mut client = server.connect().await;
        client.stream.set_nodelay(true).expect("a socket");
        let before = server.lane.meter().bytes_received.get();
        client.send(&head[..split]).await;
        crate::http::tests::support::until(|| {
            server.lane.meter().bytes_received.get() == before + split as u64
        })
        .await;
        client.send(&head[split..]).await;
        let reply = client.rest().await;
        assert_eq!(
            (status(&reply), count_responses(&reply)),
            (400, 1),
            "split at {split}: {reply}"
        );
    }
}

#[tokio::test(flavor = "local")]
async fn two_equal_lengths_are_refused_behind_a_pipelined_request() {
    let server = Server::start(HttpOptions::default(), echo);
    let reply = server
        .say(
            "POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi\
             POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nhi",
        )
        .await;
    assert_eq!(count_responses(&reply), 2, "{reply}");
    assert!(reply.contains("POST /1 hi") && reply.contains("HTTP/1.1 400"), "{reply}");
}

#[tokio::test(flavor = "local")]
async fn a_length_in_a_body_is_no_header() {
    let server = Server::start(HttpOptions::default(), echo);
    let mut client = server.connect().await;
    let body = "\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n";
    let length = body.len();
    client
        .send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}"))
        .await;
    let (head, _) = client.response().await;
    assert_eq!(status(&head), 200);
}

#[tokio::test(flavor = "local")]
async fn a_length_beside_chunks_is_ignored_and_the_connection_closed() {
    let server = Server::start(HttpOptions::default(), echo);
    for lengths in [
        "Content-Length: 3\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 3",
    ] {
        let reply = server
            .say(format!(
                "POST / HTTP/1.1\r\nHost: a\r\n{lengths}\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\n\
                 Host: a\r\n\r\n"
            ))
            .await;
        assert_eq!((status(&reply), count_responses(&reply)), (200, 1), "{reply}");
        assert_eq!(header(&reply, "connection"), Some("close"));
    }
}

#[tokio::test(flavor = "local")]
async fn other_codings_than_chunked_are_refused() {
    let server = Server::start(HttpOptions::default(), echo);
    let with = |version: &str, coding: &str| {
        format!("POST / {version}\r\nHost: a\r\nTransfer-Encoding: {coding}\r\n\r\n0\r\n\r\n")
    };
    refuses(&server, with("HTTP/1.0", "chunked"), 400).await;
    refuses(&server, with("HTTP/1.1", "gzip"), 400).await;
    refuses(&server, with("HTTP/1.1", "chunked, gzip"), 400).await;
    refuses(&server, with("HTTP/1.1", "xchunked"), 400).await;
    refuses(&server, with("HTTP/1.1", "gzip, chunked"), 501).await;
    refuses(&server, with("HTTP/1.1", "chunked\r\nTransfer-Encoding: chunked"), 501).await;
}

#[tokio::test(flavor = "local")]
async fn malformed_chunks_are_refused() {
    let server = Server::start(HttpOptions::default(), echo);
    let start = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for chunks in [
        "zz\r\nhello\r\n0\r\n\r\n",
        "5\r\nhelloXX0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "5 5\r\nhello\r\n0\r\n\r\n",
        "fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
    ] {
        refuses(&server, format!("{start}{chunks}"), 400).await;
    }
}

#[tokio::test(flavor = "local")]
async fn what_is_too_large_is_refused() {
    let options = HttpOptions { max_headers: 20, ..HttpOptions::default() };
    let server = Server::start(options, echo);
    let long = "x".repeat(70 * 1024);
    refuses(&server, format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n"), 431).await;
    refuses(&server, format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}"), 431).await;
    let many = "X: y\r\n".repeat(21);
    refuses(&server, format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n"), 431).await;
}

#[tokio::test(flavor = "local")]
async fn a_target_beyond_what_a_uri_may_be_is_refused() {
    let options = HttpOptions { max_header_bytes: 256 * 1024, ..HttpOptions::default() };
    let server = Server::start(options, echo);
    let long = "x".repeat(70 * 1024);
    refuses(&server, format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"), 414).await;
}

#[tokio::test(flavor = "local")]
async fn a_target_that_names_no_resource_is_refused() {
    let server = Server::start(HttpOptions::default(), echo);
    refuses(&server, "CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", 501).await;
    refuses(&server, "GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n", 400).await;
    refuses(&server, "GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400).await;
}

#[tokio::test(flavor = "local")]
async fn absolute_and_asterisk_targets_are_served() {
    let server = Server::start(HttpOptions::default(), echo);
    let mut client = server.connect().await;
    client.send("GET http://b/path HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.response().await.1, "GET /path ");
    client.send("GET http://b HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.response().await.1, "GET / ");
    client.send("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.response().await.1, "OPTIONS * ");
}

#[tokio::test(flavor = "local")]
async fn an_http2_preface_is_told_what_is_spoken_here() {
    let server = Server::start(HttpOptions::default(), echo);
    refuses(&server, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505).await;
}

#[tokio::test(flavor = "local")]
async fn another_version_is_told_what_is_spoken_here() {
    let server = Server::start(HttpOptions::default(), echo);
    for version in ["0.9", "1.2", "2.0", "3.0"] {
        refuses(&server, format!("GET / HTTP/{version}\r\nHost: a\r\n\r\n"), 505).await;
    }
}

#[tokio::test(flavor = "local")]
async fn a_body_that_nobody_reads_is_never_the_next_request() {
    // The service answers without a look at the body.
    let server = Server::start(HttpOptions::default(), |_, _| {
        Box::pin(async { crate::http::tests::support::text("ok") })
    });
    let inner = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let length = inner.len();
    for method in ["GET", "POST", "DELETE"] {
        let mut client = server.connect().await;
        client
            .send(format!(
                "{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{inner}"
            ))
            .await;
        client.stream.set_nodelay(true).expect("a socket");
        client.send("GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        let reply = client.rest().await;
        assert!(count_responses(&reply) <= 2, "{method}: {reply}");
    }
    assert!(server.lane.meter().requests.get() <= 6);
    // Without the request behind it, one response is all there is, however the body arrives.
    for (head, body) in [(inner, ""), ("", inner), (&inner[..10], &inner[10..])] {
        let mut client = server.connect().await;
        let requests = server.lane.meter().requests.get();
        client
            .send(format!("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{head}"))
            .await;
        client.response().await;
        // The server may have closed by now: it owes nobody the rest.
        let _ = tokio::io::AsyncWriteExt::write_all(&mut client.stream, body.as_bytes()).await;
        let _ = tokio::io::AsyncWriteExt::shutdown(&mut client.stream).await;
        assert_eq!(client.rest().await, "");
        assert_eq!(server.lane.meter().requests.get(), requests + 1);
    }
}

#[tokio::test(flavor = "local")]
async fn a_refused_client_that_goes_on_sending_gets_to_read_why() {
    let server = Server::start(HttpOptions::default(), |request, _| {
        Box::pin(async move {
            assert!(crate::http::declares_more_than(request.body(), 1000));
            crate::http::closing_problem(http::StatusCode::PAYLOAD_TOO_LARGE)
        })
    });
    let mut client = server.connect().await;
    let length = 8 << 20;
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n")).await;
    // All of it is sent before anything is read.
    client.send(vec![b'x'; length]).await;
    let reply = client.rest().await;
    assert_eq!((status(&reply), count_responses(&reply)), (413, 1), "{reply}");
}
