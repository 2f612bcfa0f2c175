//! Answers of pipelined requests: together where that costs nobody time, at once otherwise.

use std::future::poll_fn;
use std::task::Poll;
use std::time::{Duration, Instant};

use http::{Request, Response};
use hyper::body::Incoming;

use crate::config::HttpOptions;
use crate::http::Body;
use crate::http::gather::LONGEST;
use crate::http::tests::support::{Reply, Server, count_responses, text, until, within};

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")
}

/// Answers at once, after one suspension, never, or never while it keeps its connection busy.
fn paced(request: &Request<Incoming>) -> Reply {
    match request.uri().path() {
        "/now" => Box::pin(async { text("now") }),
        "/soon" => Box::pin(async {
            tokio::task::yield_now().await;
            text("soon")
        }),
        "/never" => Box::pin(std::future::pending()),
        "/busy" => Box::pin(poll_fn(|cx| {
            cx.waker().wake_by_ref();
            Poll::Pending
        })),
        "/stream" => {
            let (mut sender, body) = crate::http::channel();
            tokio::task::spawn_local(async move {
                let _ = sender.send("chunk".into()).await;
                sender.closed().await;
            });
            Box::pin(async { Response::new(Body::Stream(body)) })
        }
        path => panic!("no {path}"),
    }
}

fn start() -> Server {
    Server::start(HttpOptions::default(), |request, _| paced(&request))
}

#[tokio::test(flavor = "local")]
async fn answers_that_come_one_after_the_other_are_sent_together() {
    let server = start();
    let mut client = server.connect().await;
    within(async {
        loop {
            let (before, began) = (server.lane.meter().sends.get(), Instant::now());
            client.send(get("/soon").repeat(5)).await;
            for _ in 0..5 {
                assert_eq!(client.response().await.1, "soon");
            }
            // No answer waits longer, so a round in which the machine was elsewhere proves nothing.
            if began.elapsed() < LONGEST {
                assert_eq!(server.lane.meter().sends.get(), before + 1);
                break;
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "local")]
async fn an_answer_does_not_wait_for_a_slower_request() {
    for slow in ["/never", "/busy"] {
        for first in ["/now", "/soon"] {
            let server = start();
            let mut client = server.connect().await;
            let sent = Instant::now();
            client.send(get(first) + &get(first) + &get(slow)).await;
            client.response().await;
            client.response().await;
            // Generous: the bound is a millisecond, the machine may be busy.
            assert!(sent.elapsed() < Duration::from_millis(500), "{slow}");
            assert_eq!(server.lane.meter().in_flight.get(), 1);
        }
    }
}

#[tokio::test(flavor = "local")]
async fn an_answer_waits_for_no_other_connection() {
    let server = start();
    let mut busy = server.connect().await;
    busy.send(get("/busy")).await;
    until(|| server.lane.meter().in_flight.get() == 1).await;
    let mut client = server.connect().await;
    let sent = Instant::now();
    client.send(get("/soon") + &get("/never")).await;
    client.response().await;
    assert!(sent.elapsed() < Duration::from_millis(500));
}

#[tokio::test(flavor = "local")]
async fn a_stream_behind_an_answer_is_sent_as_it_comes() {
    let server = start();
    let mut client = server.connect().await;
    client.send(get("/soon") + &get("/stream")).await;
    assert_eq!(client.response().await.1, "soon");
    client.until("chunk\r\n").await;
}

#[tokio::test(flavor = "local")]
async fn an_answer_goes_out_before_the_client_is_asked_for_a_body() {
    let server = Server::start(HttpOptions::default(), |request, connection| {
        if request.method() == http::Method::POST {
            crate::http::tests::support::echo(request, connection)
        } else {
            paced(&request)
        }
    });
    let mut client = server.connect().await;
    let post = "POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n";
    client.send(get("/soon") + post).await;
    client.response().await;
    client.until("HTTP/1.1 100 Continue\r\n\r\n").await;
    client.send("ok").await;
    assert_eq!(client.response().await.1, "POST /b ok");
}

#[tokio::test(flavor = "local")]
async fn a_connection_that_ends_sends_what_it_holds() {
    let server = start();
    let mut client = server.connect().await;
    client.send(get("/soon") + &get("/busy")).await;
    // Both are in flight or answered; the drain is over when the connection is gone.
    until(|| server.lane.meter().requests.get() == 2).await;
    server.lane.abort_all();
    assert_eq!(count_responses(&client.rest().await), 1);
    until(|| server.lane.open() == 0).await;
}

#[tokio::test(flavor = "local")]
async fn a_client_that_reads_slowly_gets_every_answer_whole() {
    let server = Server::start(HttpOptions::default(), |_, _| {
        Box::pin(async {
            tokio::task::yield_now().await;
            Response::new(Body::Full(vec![b'x'; 15_000].into()))
        })
    });
    let mut client = server.connect().await;
    client.send(get("/").repeat(1000)).await;
    // More than the sockets hold is on its way before the first is read.
    until(|| server.lane.meter().requests.get() > 100).await;
    for _ in 0..1000 {
        assert_eq!(client.response().await.1.len(), 15_000);
    }
}
