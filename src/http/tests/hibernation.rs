//! Idle connections give their buffers back, and nobody can tell.

use std::time::Duration;

use crate::config::HttpOptions;
use crate::http::tests::support::{Server, echo, status, until};

const SHORT: Duration = Duration::from_millis(16);

fn sleepy() -> Server {
    let options = HttpOptions { hibernate_after: SHORT, ..HttpOptions::default() };
    Server::start(options, echo)
}

/// Whether the only connection of the lane sleeps.
fn sleeps(server: &Server) -> bool {
    server.lane.registry.borrow().are_all_asleep()
}

#[tokio::test(flavor = "local")]
async fn a_new_connection_sleeps_until_it_speaks() {
    let server = sleepy();
    let mut client = server.connect().await;
    until(|| server.lane.open() == 1).await;
    assert!(sleeps(&server));
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.response().await.1, "GET / ");
    assert!(!sleeps(&server));
}

#[tokio::test(flavor = "local")]
async fn requests_after_a_sleep_are_served() {
    let server = sleepy();
    let mut client = server.connect().await;
    let large = "x".repeat(200_000);
    for (request, answers) in [
        ("GET /1 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), vec!["GET /1 ".to_owned()]),
        (
            "GET /2 HTTP/1.1\r\nHost: a\r\n\r\nPOST /3 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"
                .to_owned(),
            vec!["GET /2 ".to_owned(), "POST /3 hi".to_owned()],
        ),
        (
            "POST /4 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"
                .to_owned(),
            vec!["POST /4 hi".to_owned()],
        ),
        (
            format!("POST /5 HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{large}", large.len()),
            vec![format!("POST /5 {large}")],
        ),
    ] {
        until(|| sleeps(&server)).await;
        client.send(request).await;
        for answer in answers {
            assert_eq!(client.response().await.1, answer);
        }
    }
    assert_eq!(server.lane.meter().connections.get(), 1);
}

#[tokio::test(flavor = "local")]
async fn a_head_that_has_begun_survives_the_sleep() {
    let server = sleepy();
    let mut client = server.connect().await;
    client.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HT").await;
    assert_eq!(client.response().await.1, "GET /1 ");
    let now = server.lane.clock.now();
    until(|| server.lane.clock.now() > now + 30).await;
    client.send("TP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.response().await.1, "GET /2 ");
}

#[tokio::test(flavor = "local")]
async fn two_equal_lengths_are_refused_after_a_sleep() {
    let server = sleepy();
    let mut client = server.connect().await;
    client.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.response().await;
    until(|| sleeps(&server)).await;
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nhi")
        .await;
    assert_eq!(status(&client.rest().await), 400);
}

#[tokio::test(flavor = "local")]
async fn a_connection_with_an_unread_body_does_not_sleep() {
    // The service keeps the body that it does not read, so hyper can neither drain it nor close.
    let kept = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    let keep = std::rc::Rc::clone(&kept);
    let options = HttpOptions {
        hibernate_after: SHORT,
        keep_alive_timeout: SHORT * 4,
        ..HttpOptions::default()
    };
    let server = Server::start(options, move |request, _| {
        keep.borrow_mut().push(request.into_body());
        Box::pin(async { crate::http::tests::support::text("ok") })
    });
    let mut client = server.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nhi").await;
    assert_eq!(client.response().await.1, "ok");
    // It would be asleep by now, and would take what comes for a request.
    let now = server.lane.clock.now();
    until(|| server.lane.clock.now() > now + 14).await;
    assert!(!sleeps(&server) && server.lane.open() == 1);
    client.send("GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.rest().await, "");
    assert_eq!(kept.borrow().len(), 1);
}

#[tokio::test(flavor = "local")]
async fn a_client_that_leaves_a_sleeping_connection_is_noticed() {
    let server = sleepy();
    let mut client = server.connect().await;
    client.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.response().await;
    until(|| sleeps(&server)).await;
    drop(client);
    until(|| server.lane.open() == 0).await;
}

#[tokio::test(flavor = "local")]
async fn of_many_that_asked_once_few_stay_awake() {
    let server = Server::start(HttpOptions::default(), echo);
    // With the start of another request behind the first, which has to stay awake, and without.
    for (start, rest) in [("", "GET /2"), ("GET /2", "")] {
        let mut clients = Vec::new();
        for _ in 0..200 {
            let mut client = server.connect().await;
            client.send(format!("GET /1 HTTP/1.1\r\nHost: a\r\n\r\n{start}")).await;
            assert_eq!(client.response().await.1, "GET /1 ");
            clients.push(client);
        }
        assert!(server.lane.awake.get() < 100 || !start.is_empty());
        for client in &mut clients {
            client.send(format!("{rest} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
            assert_eq!(client.response().await.1, "GET /2 ");
        }
        drop(clients);
        until(|| server.lane.open() == 0 && server.lane.awake.get() == 0).await;
    }
}
