//! Streamed responses: as fast as the client reads, and broken where the producer breaks them.

use std::cell::Cell;
use std::rc::Rc;

use bytes::Bytes;
use http::Response;
use tokio::io::AsyncReadExt;

use crate::config::HttpOptions;
use crate::http::channel;
use crate::http::tests::support::{Flag, Server, once, until, within};

const CHUNK: usize = 64 * 1024;

/// A server whose handler sends without end, and how many bytes it has got rid of.
fn endless() -> (Server, Rc<Cell<usize>>, Rc<Cell<bool>>) {
    let produced = Rc::new(Cell::new(0));
    let (flag, ended) = Flag::new();
    let (count, flag) = (Rc::clone(&produced), once(flag));
    let server = Server::start(HttpOptions::default(), move |_, _| {
        let (mut sender, body) = channel();
        let (count, flag) = (Rc::clone(&count), flag.borrow_mut().take());
        tokio::task::spawn_local(async move {
            let _flag = flag;
            while sender.send(vec![b'x'; CHUNK].into()).await.is_ok() {
                count.set(count.get() + CHUNK);
            }
        });
        Box::pin(async { Response::new(body.into()) })
    });
    (server, produced, ended)
}

/// Waits until the producer stands still.
async fn settle(produced: &Cell<usize>) -> usize {
    let mut before = usize::MAX;
    for _ in 0..1000 {
        if produced.get() == before && before > 0 {
            return before;
        }
        before = produced.get();
        // Not for a moment in time: for turns of the runtime in which it could have gone on.
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    panic!("the producer never stops");
}

async fn a_slow_reader_stops_the_producer(requests: &str) {
    let (server, produced, ended) = endless();
    let mut client = server.connect().await;
    client.send(requests).await;
    let stuck = settle(&produced).await;
    // What the kernel holds for both sides, and little more.
    assert!(stuck < 16 << 20, "{stuck} bytes were produced for a client that reads none");
    let sent = usize::try_from(server.lane.meter().bytes_sent.get()).expect("not that many");
    assert!(stuck - sent <= 4 * CHUNK, "{} bytes are buffered", stuck - sent);
    // Reading lets it go on.
    let mut read = 0;
    let mut buffer = vec![0; CHUNK];
    while read < 2 * stuck {
        read += within(client.stream.read(&mut buffer)).await.expect("bytes");
    }
    assert!(produced.get() > stuck);
    assert!(!ended.get());
    drop(client);
    until(|| ended.get() && server.lane.open() == 0).await;
}

#[tokio::test(flavor = "local")]
async fn a_slow_reader_slows_the_producer() {
    a_slow_reader_stops_the_producer("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
}

#[tokio::test(flavor = "local")]
async fn a_slow_reader_slows_the_producer_with_requests_behind_it() {
    a_slow_reader_stops_the_producer(&"GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(3)).await;
}

#[tokio::test(flavor = "local")]
async fn every_chunk_is_sent_when_it_is_there() {
    let (sender, body) = channel();
    let body = once(body);
    let server = Server::start(HttpOptions::default(), move |_, _| {
        let body = body.borrow_mut().take().expect("one request");
        Box::pin(async { Response::new(body.into()) })
    });
    let mut client = server.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.until("\r\n\r\n").await;
    let mut sender = sender;
    for _ in 0..3 {
        sender.send(Bytes::from_static(b"tick")).await.expect("the client is there");
        assert_eq!(client.until("\r\ntick\r\n").await, "4\r\ntick\r\n");
    }
    drop(sender);
    assert_eq!(client.until("\r\n\r\n").await, "0\r\n\r\n");
}

/// What a client gets of a response that is aborted after its first chunk.
async fn aborted(request: &str) -> (String, std::io::Result<usize>) {
    let (mut sender, body) = channel();
    let body = once(body);
    let server = Server::start(HttpOptions::default(), move |_, _| {
        let body = body.borrow_mut().take().expect("one request");
        Box::pin(async { Response::new(body.into()) })
    });
    let mut client = server.connect().await;
    client.send(request).await;
    sender.send(Bytes::from_static(b"part")).await.expect("the client is there");
    let start = client.until("part").await;
    sender.abort();
    let mut rest = Vec::new();
    let end = within(client.stream.read_to_end(&mut rest)).await;
    (start + &String::from_utf8_lossy(&rest), end)
}

#[tokio::test(flavor = "local")]
async fn an_aborted_response_has_no_last_chunk() {
    let (bytes, _) = aborted("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(bytes.ends_with("part\r\n") || bytes.ends_with("part"), "{bytes}");
}

#[tokio::test(flavor = "local")]
async fn an_aborted_response_to_http_1_0_is_a_reset() {
    let (_, end) = aborted("GET / HTTP/1.0\r\n\r\n").await;
    assert_eq!(end.expect_err("a reset").kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test(flavor = "local")]
async fn the_sender_hears_of_a_client_that_leaves_while_it_waits() {
    let (sender, body) = channel();
    let body = once(body);
    let server = Server::start(HttpOptions::default(), move |_, _| {
        let body = body.borrow_mut().take().expect("one request");
        Box::pin(async { Response::new(body.into()) })
    });
    // With a request behind, so that the server does not read.
    for behind in ["", "GET / HTTP/1.1\r\nHost: a\r\n\r\n"] {
        if sender.is_closed() {
            break;
        }
        let mut client = server.connect().await;
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\n\r\n{behind}")).await;
        client.until("\r\n\r\n").await;
        drop(client);
        within(sender.closed()).await;
    }
    assert!(sender.is_closed());
}

#[tokio::test(flavor = "local")]
async fn a_large_response_arrives_whole() {
    let body = (0..2_000_000_u32).flat_map(u32::to_le_bytes).collect::<Vec<_>>();
    let expected = body.clone();
    let server = Server::start(HttpOptions::default(), move |_, _| {
        let body = Bytes::from(body.clone());
        Box::pin(async { Response::new(body.into()) })
    });
    let mut client = server.connect().await;
    client.send("GET / HTTP/1.0\r\n\r\n").await;
    let mut all = Vec::new();
    within(client.stream.read_to_end(&mut all)).await.expect("the whole of it");
    assert!(all.ends_with(&expected));
}
