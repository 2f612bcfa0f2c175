//! HTTP/1 as it should be: what is written, byte by byte.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use tokio::sync::Notify;

use crate::config::HttpOptions;
use crate::http::tests::support::{Server, echo, header, status, text};
use crate::http::{Body, RequestBody, channel};

#[tokio::test(flavor = "local")]
async fn keep_alive_serves_one_request_after_the_other() {
    let server = Server::start(HttpOptions::default(), echo);
    let mut client = server.connect().await;
    for path in ["/1", "/2", "/3"] {
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        let (head, body) = client.response().await;
        assert_eq!(status(&head), 200);
        assert!(header(&head, "date").is_some());
        assert_eq!(body, format!("GET {path} "));
    }
    let meter = server.lane.meter();
    let counted = (meter.connections.get(), meter.requests.get(), meter.in_flight.get());
    assert_eq!(counted, (1, 3, 0));
}

#[tokio::test(flavor = "local")]
async fn pipelined_requests_are_answered_in_order() {
    let server = Server::start(HttpOptions::default(), |request, connection| {
        Box::pin(async move {
            if request.uri().path().ends_with('3') {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            echo(request, connection).await
        })
    });
    let mut client = server.connect().await;
    // More than hyper takes in one poll, bodies among them.
    let requests = (0..40)
        .map(|n| format!("POST /{n} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{n:02}"))
        .collect::<String>();
    client.send(requests).await;
    for n in 0..40 {
        assert_eq!(client.response().await.1, format!("POST /{n} {n:02}"));
    }
}

#[tokio::test(flavor = "local")]
async fn a_finished_response_does_not_wait_for_the_requests_behind_it() {
    let gate = Rc::new(Notify::new());
    let open = Rc::clone(&gate);
    let server = Server::start(HttpOptions::default(), move |request, connection| {
        let gate = Rc::clone(&gate);
        Box::pin(async move {
            if request.uri().path() == "/slow" {
                gate.notified().await;
            }
            echo(request, connection).await
        })
    });
    let mut client = server.connect().await;
    client
        .send(
            "GET /fast HTTP/1.1\r\nHost: a\r\n\r\nGET /slow HTTP/1.1\r\nHost: a\r\n\r\n\
             GET /last HTTP/1.1\r\nHost: a\r\n\r\nGET /par",
        )
        .await;
    assert_eq!(client.response().await.1, "GET /fast ");
    open.notify_one();
    assert_eq!(client.response().await.1, "GET /slow ");
    // Nor for the rest of a head that has begun to arrive.
    assert_eq!(client.response().await.1, "GET /last ");
}

#[tokio::test(flavor = "local")]
async fn a_client_that_expects_it_is_told_to_continue() {
    let server = Server::start(HttpOptions::default(), echo);
    let mut client = server.connect().await;
    let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    client.send(head).await;
    assert_eq!(client.until("\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
    client.send("hello").await;
    assert_eq!(client.response().await.1, "POST / hello");
}

#[tokio::test(flavor = "local")]
async fn a_refused_body_is_not_asked_for() {
    let server = Server::start(HttpOptions::default(), |_, _| {
        Box::pin(async { crate::http::closing_problem(http::StatusCode::PAYLOAD_TOO_LARGE) })
    });
    let mut client = server.connect().await;
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999\r\nExpect: 100-continue\r\n\r\n")
        .await;
    let (head, body) = client.response().await;
    assert_eq!(status(&head), 413);
    assert_eq!(body, r#"{"detail":"Payload Too Large"}"#);
}

#[tokio::test(flavor = "local")]
async fn http_1_0_closes_unless_asked_not_to() {
    let server = Server::start(HttpOptions::default(), echo);
    let reply = server.say("GET / HTTP/1.0\r\n\r\n").await;
    assert!(reply.starts_with("HTTP/1.0 200 OK\r\n") && reply.ends_with("\r\n\r\nGET / "));
    let mut client = server.connect().await;
    client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
    let (head, _) = client.response().await;
    assert_eq!(header(&head, "connection"), Some("keep-alive"));
    client.send("GET /2 HTTP/1.0\r\n\r\n").await;
    assert!(client.rest().await.ends_with("GET /2 "));
}

#[tokio::test(flavor = "local")]
async fn connection_close_is_obeyed() {
    let server = Server::start(HttpOptions::default(), echo);
    let reply = server.say("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert_eq!(status(&reply), 200);
    assert_eq!(header(&reply, "connection"), Some("close"));
}

#[tokio::test(flavor = "local")]
async fn a_chunked_body_is_read_whole() {
    let server = Server::start(HttpOptions::default(), echo);
    let mut client = server.connect().await;
    let start = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    client.send(format!("{start}5;ext=1\r\nhello\r\n6\r\n world\r\n0\r\n\r\n")).await;
    assert_eq!(client.response().await.1, "POST / hello world");
    client.send(format!("{start}0\r\n\r\n")).await;
    assert_eq!(client.response().await.1, "POST / ");
}

#[tokio::test(flavor = "local")]
async fn trailers_are_read_and_end_the_connection() {
    let server = Server::start(HttpOptions::default(), echo);
    let start = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let reply = server.say(format!("{start}5\r\nhello\r\n0\r\nX-After: y\r\n\r\n")).await;
    assert!(reply.ends_with("POST / hello"), "{reply}");
    assert_eq!(header(&reply, "connection"), Some("close"));
}

#[tokio::test(flavor = "local")]
async fn a_body_in_many_pieces_is_read_whole() {
    let server = Server::start(HttpOptions::default(), echo);
    let mut client = server.connect().await;
    let body = "0123456789".repeat(50_000);
    let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len());
    client.send(head).await;
    client.send(&body).await;
    assert_eq!(client.response().await.1, format!("POST / {body}"));
}

#[tokio::test(flavor = "local")]
async fn a_body_past_the_limit_is_cut_off() {
    let server = Server::start(HttpOptions::default(), echo);
    let chunk = "x".repeat(1 << 16);
    let chunks = format!("10000\r\n{chunk}\r\n").repeat(17);
    let start = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(status(&server.say(format!("{start}{chunks}0\r\n\r\n")).await), 413);
    let start = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1048577\r\n\r\n";
    assert_eq!(status(&server.say(start).await), 413);
}

fn streamed(chunks: &'static [&'static str]) -> Response<Body> {
    let (mut sender, body) = channel();
    tokio::task::spawn_local(async move {
        for chunk in chunks {
            if sender.send(Bytes::from_static(chunk.as_bytes())).await.is_err() {
                return;
            }
        }
    });
    Response::new(body.into())
}

#[tokio::test(flavor = "local")]
async fn a_streamed_response_is_chunked_and_keeps_the_connection() {
    let server =
        Server::start(HttpOptions::default(), |_, _| Box::pin(async { streamed(&["ab", "cde"]) }));
    let mut client = server.connect().await;
    for _ in 0..2 {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let head = client.until("\r\n\r\n").await;
        assert_eq!(header(&head, "transfer-encoding"), Some("chunked"));
        assert_eq!(client.until("0\r\n\r\n").await, "2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n");
    }
}

#[tokio::test(flavor = "local")]
async fn a_streamed_response_to_http_1_0_ends_with_the_connection() {
    let server =
        Server::start(HttpOptions::default(), |_, _| Box::pin(async { streamed(&["ab", "cde"]) }));
    let reply = server.say("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
    assert!(reply.ends_with("\r\n\r\nabcde"), "{reply}");
    assert_eq!(header(&reply, "transfer-encoding"), None);
}

#[tokio::test(flavor = "local")]
async fn head_gets_the_headers_of_get_and_no_bytes() {
    let server = Server::start(HttpOptions::default(), |request, _| {
        Box::pin(async move {
            match request.uri().path() {
                "/full" => text("hello"),
                "/empty" => Response::new(Body::Empty),
                "/stream" => streamed(&["ab"]),
                _ => crate::http::problem(http::StatusCode::NOT_FOUND),
            }
        })
    });
    let comparable = |head: &str| {
        // How the bytes would be framed is known only when there are some: RFC 9110, 9.3.2 lets a
        // HEAD leave it out, and hyper does.
        let varies =
            |line: &&str| line.starts_with("date") || line.starts_with("transfer-encoding");
        let mut lines = head.lines().filter(|line| !varies(line)).collect::<Vec<_>>();
        lines.sort_unstable();
        lines.join("\n")
    };
    for path in ["/full", "/stream", "/missing"] {
        let ask =
            |method| format!("{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let get = server.say(ask("GET")).await;
        let head = server.say(ask("HEAD")).await;
        let (get, _) = get.split_once("\r\n\r\n").expect("a head");
        let (head, body) = head.split_once("\r\n\r\n").expect("a head");
        assert_eq!(comparable(head), comparable(get), "{path}");
        assert_eq!(body, "", "{path}");
    }
    // The connection goes on behind it.
    let mut client = server.connect().await;
    client.send("HEAD /full HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(header(&client.until("\r\n\r\n").await, "content-length"), Some("5"));
    client.send("GET /full HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.response().await.1, "hello");
}

#[tokio::test(flavor = "local")]
async fn statuses_without_a_body_have_none() {
    for code in [204, 304] {
        let server = Server::start(HttpOptions::default(), move |_, _| {
            Box::pin(async move {
                let mut response = text("not to be seen");
                *response.status_mut() = http::StatusCode::from_u16(code).expect("a status");
                response
            })
        });
        let reply = server.say("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        assert!(reply.ends_with("\r\n\r\n"), "{reply}");
        assert_eq!(header(&reply, "transfer-encoding"), None);
    }
}

#[tokio::test(flavor = "local")]
async fn the_rest_of_a_small_body_that_is_left_is_thrown_away() {
    let server = Server::start(HttpOptions::default(), |request, connection| {
        let path = request.uri().path().to_owned();
        let body = RequestBody::new(request.into_body(), &connection, 1 << 20);
        Box::pin(async move {
            drop(body);
            if path == "/later" {
                tokio::task::yield_now().await;
            }
            text("ok")
        })
    });
    let mut client = server.connect().await;
    for path in ["/now", "/later", "/now"] {
        client.send(format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n")).await;
        let (head, body) = client.response().await;
        assert_eq!((header(&head, "connection"), body.as_str()), (None, "ok"));
        client.send("ab").await;
        client.send("cd").await;
    }
}
